"""Join the journals of an audit that was run in parts into its one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmtrap.audit.journal import BesideRecord, PlanRecord, Recorded, open_existing, remembered
from llmtrap.audit.report import assemble
from llmtrap.audit.settings import Part
from llmtrap.errors import UsageError
from llmtrap.report import document
from llmtrap.report.formatting import join

_MOST_NAMED = 8


def merge_journals(paths: Sequence[Path], name: str | None = None) -> document.Report:
    """The report of the newest plan that all journals share; `name` is what to call its target.

    Raises:
        LlmtrapError: a journal is not there.
        UsageError: the journals belong to different audits: another checkpoint, another setting or version.
    """
    journals = [open_existing(_file(path)) for path in paths]
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
    results: dict[str, Recorded] = {}
    for journal in journals:
        results.update(journal.results(wanted))
    matrices = {key: result.matrix for key, result in results.items()}
    # The parts ran side by side, on machines that may differ: their time is that of all matrices.
    seconds = sum(matrix.seconds for matrix in matrices.values())
    found = [beside for journal in journals if (beside := journal.beside(plan.key)) is not None]
    beside = found[0] if found else BesideRecord(tuple(map(_not_looked_at, plan.skipped)))
    ended = set().union(*(journal.parts(plan.key) for journal in journals))
    why = dict.fromkeys(wanted - matrices.keys(), f"not measured: {_missing(ended)}")
    return assemble(
        plan, matrices, beside, errors=why, digests=beside.digests, name=name, seconds=seconds,
        remembered=remembered(results.values()),
    )  # fmt: skip


def _missing(ended: set[Part]) -> str:
    """Why a matrix is in no journal, from the shares of the work that came to their end."""
    if not ended:
        return "no part has come to its end"
    of = max(part.of for part in ended)
    missing = [f"{number}/{of}" for number in range(1, of + 1) if Part(number, of) not in ended]
    if len(missing) > _MOST_NAMED:
        return f"{len(missing)} of {of} parts are missing"
    is_ = "part {} is missing" if len(missing) == 1 else "parts {} are missing"
    return is_.format(join(missing)) if missing else "it failed in its part"


def _file(path: Path) -> Path:
    """The journal itself, where the folder is given that `--journal` took."""
    if not path.is_dir():
        return path
    inside = sorted(path.glob("*.jsonl"))
    if len(inside) != 1:
        names = ", ".join(item.name for item in inside[:8])
        problem = f"{path}: the folder holds {len(inside)} journals{f': {names}' if names else ''}"
        remedy = "Give the journal's file, which audit --part named when it ended"
        raise UsageError(problem, remedy=f"{remedy}: NAME-xxxxxxxx.jsonl")
    return inside[0]


def _not_looked_at(item: document.SkippedTensor) -> document.SkippedTensor:
    """A tensor beside the matrices of which no part has come to see the values."""
    if item.kind in ("on_request", "file_not_read", "buffer"):
        return item
    reason = f"{item.reason}; not looked through: no part came to its end"
    return item.model_copy(update={"kind": "unreadable", "reason": reason})
