"""Join the journals of an audit that was run in parts into its one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmtrap.audit.journal import PlanRecord, open_existing
from llmtrap.audit.report import assemble_record
from llmtrap.errors import UsageError
from llmtrap.report import document


def merge_journals(paths: Sequence[Path]) -> document.Report:
    """The report of the newest plan that all journals share.

    Raises:
        LlmtrapError: a journal is not there.
        UsageError: the journals belong to different audits: another checkpoint, another setting or version.
    """
    journals = [open_existing(path) for path in paths]
    plans = [{plan.key: plan for plan in journal.plans()} for journal in journals]
    shared: list[PlanRecord] = [plan for key, plan in plans[0].items() if all(key in others for others in plans)]
    if not shared:
        names = ", ".join(str(path) for path in paths)
        raise UsageError(
            f"these journals are not parts of one audit: {names}",
            remedy="Run every part with the same llmtrap version, checkpoint and settings",
        )
    plan = shared[-1]
    wanted = {key for _, _, key, _, _ in plan.tasks}
    results: dict[str, document.Matrix] = {}
    for journal in journals:
        results.update(journal.matrices(wanted))
    return assemble_record(plan, results)
