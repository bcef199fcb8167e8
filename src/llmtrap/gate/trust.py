"""Whether a journal may speak for a checkpoint that is judged: whoever can write to it can write the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from llmtrap.checkpoint import Source
from llmtrap.gate.targets import Opened
from llmtrap.printable import printable
from llmtrap.report.document import Report
from llmtrap.report.formatting import join, plural
from llmtrap.systems.files import is_of_another, user_id


def distrusted(folder: Path, sources: Iterable[Source]) -> str | None:
    """Why the journals of a folder are not used by the gate; None where they may be.

    A change that is judged must not bring its own measurements along: neither in the folder of the weights, nor
    committed to the repository that the gate runs in.

    Args:
        folder: where the journals are, or will be.
        sources: the files that are judged, and those they are judged against.
    """
    if user_id() is None:
        return "whose it is cannot be told on this system"
    place = folder.absolute()
    for there in (place, *(sorted(place.glob("*.jsonl")) if place.is_dir() else ())):
        if there.exists() and is_of_another(there.stat()):
            return "it belongs to another user"
    resolved = place.resolve()
    for source in sources:
        if source.identity.kind in ("folder", "file"):
            target = Path(source.identity.name).resolve()
            if resolved.is_relative_to(target if target.is_dir() else target.parent):
                return "it lies in the folder of the weights"
    if any((parent / ".git").exists() for parent in (resolved, *resolved.parents)):
        return "it lies in a git work tree, where a change may bring its own"
    return None


def from_journal(sides: Mapping[str, tuple[Opened | None, Report | None]], journal: Path | None) -> str | None:
    """What a journal said in the place of a measurement, and when it was written; None where all was measured now.

    A journal that belongs to the user is believed, and a forged one that the user named cannot be told from it: so the
    judgement says how much of it rests on one.

    Args:
        sides: what was opened, and its report, by what a reader calls the side.
        journal: the folder of the journals that were used; None where none was.
    """
    kept = {
        side: report.summary.remembered
        for side, (opened, report) in sides.items()
        if report is not None and not isinstance(opened, Report) and report.summary.remembered is not None
    }
    if not kept or journal is None:
        return None
    parts = [
        f"{plural(it.matrices, 'matrix')} of the {side} (measured {it.oldest} to {it.newest})"
        for side, it in kept.items()
    ]
    place = printable(str(journal), 200)
    return f"taken from the journal in {place}, not measured now: {join(parts)}; --fresh measures everything anew"


def sources_of(*sides: Opened | None) -> list[Source]:
    """The sources of the sides that have weights."""
    return [side.source for side in sides if side is not None and not isinstance(side, Report)]
