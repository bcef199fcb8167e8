"""Two examples of every command, as its help shows them: the words after `llmtrap`, and what they do."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("audit --demo", "Audit a small model with planted traps; nothing is fetched."),
        ("audit sentence-transformers/all-MiniLM-L6-v2", "Audit a model of the hub, streamed."),
    ),
    "audit": (
        ("audit runs/checkpoint-500", "Measure it, and write the page, Markdown and JSON."),
        ("audit org/model --no-alpha --json - --quiet", "Traps alone, the report to standard output."),
    ),
    "inspect": (
        ("inspect org/model", "What an audit would measure, what it leaves out, and how long it takes."),
        ("inspect model --all --include '*.experts.*'", "Every matrix of the experts, a line each."),
    ),
    "gate": (
        ("gate tuned --baseline org/base --output junit=gate.xml", "Judge it, and write what a CI server reads."),
        (
            "gate tuned --baseline base.json --accept harmless --expires 2027-03-01",
            "Accept what was found until that day.",
        ),
    ),
    "trajectory": (
        ("trajectory runs", "Follow all checkpoints of a run."),
        ("trajectory org/model --revisions 'step*' --points 8", "Eight of the revisions that a hub keeps."),
    ),
    "watch": (
        ("watch runs --policy llmtrap.toml", "Audit each checkpoint as it is saved; end where the policy is violated."),
        ("watch runs --once --json run.json", "Audit what is there now, and end."),
    ),
    "calibrate": (
        ("calibrate --task digits --preset quick", "Train a small network through its phases; minutes."),
        ("calibrate --from-trajectory run.json --scores scores.csv", "Hold a run of your own against its test scores."),
    ),
    "report": (
        ("report tuned.json --against base.json", "Show what is new against the base."),
        ("report --index llmtrap-reports", "Write a page that lists all reports of a folder."),
    ),
    "reference": (
        ("reference", "Show what published models have."),
        ("reference build one.json two.json --out own.json", "Build a reference of your own reports."),
    ),
    "explain": (
        ("explain alpha", "What α is and what its bands mean."),
        ("explain LT001", "What a rule of the gate looks for."),
    ),
    "merge": (
        ("merge one.jsonl two.jsonl", "Join the journals of two parts, and write the reports."),
        ("merge journals --json whole.json", "Join the parts that kept their progress in one folder."),
    ),
    "ablate": (
        ("ablate model --report report.json", "Test the traps of an audit, each by itself."),
        ("ablate model --text passage.txt --top 8 --json a.json", "The eight strongest, on a text of your own."),
    ),
    "repair": (
        ("repair tuned --out repaired --base org/base", "Restore broken entries from the base, in a copy."),
        ("repair model --out repaired --report report.json --clip", "Bring them to the limit, with the sign kept."),
    ),
    "verify": (
        ("verify model", "Compare a sample of the matrices with WeightWatcher."),
        ("verify model --matrices 3 --part text", "Three matrices of the text model."),
    ),
    "schema": (
        ("schema", "The JSON Schema of a report."),
        ("schema gate", "That of what the gate writes."),
    ),
    "doctor": (
        ("doctor", "Show what is found here."),
        ("doctor | tee doctor.txt", "Keep it, for a report of a fault."),
    ),
}  # fmt: skip
