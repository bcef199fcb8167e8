"""What to do now: commands and lines to paste, made from what was found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from llmtrap.report.against import Comparison
from llmtrap.report.document import Finding, FindingKind, Report, Target

_PLAIN: Final = re.compile(r"[\w./:+-]{1,200}", re.ASCII)
_MOST_IGNORED: Final = 3
_NO_NAME: Final = "TARGET"


@dataclass(frozen=True)
class Action:
    """One thing to do.

    Attributes:
        text: what, and why.
        command: to be run in a shell; may be empty.
        lines: to be pasted into a file; may be empty.
    """

    text: str
    command: str = ""
    lines: str = ""


def actions(report: Report, comparison: Comparison | None = None) -> tuple[Action, ...]:
    """What a reader should do now, the first first. Of a usual model: how to hold its fine-tunes against it.

    Names that a shell or a page could take for more than a name are left as words to fill in.
    """
    return tuple(_actions(report, comparison))


def where_to_run(report: Report, todo: Sequence[Action]) -> str:
    """Where commands find a target that they name by the last part of its path, or that has none; else empty."""
    named = _named(report.target)
    if not any(named in action.command.split() for action in todo):
        return ""
    if report.target.kind == "memory":
        return f"Save the model first, and put its folder in the place of {named}: the commands read files."
    by_last_part = report.target.kind in ("folder", "file") and not {"/", "\\"} & set(named)
    return f"Run the commands in the folder that holds {named}." if by_last_part and named != _NO_NAME else ""


def _actions(report: Report, comparison: Comparison | None) -> Iterator[Action]:
    target = _named(report.target)
    grave = [finding for finding in report.findings if finding.weight != "usual"]
    held = {finding.kind: finding for finding in reversed(report.findings)}
    level = report.summary.level
    if level == "nothing_measured":
        yield Action("See what was skipped and why, from the headers alone.", f"llmtrap inspect {target}")
        return
    broken = _names(held, "broken_values", "zeros", "like_noise")
    if broken:
        yield Action(f"Restore from where the model came from, or from an earlier checkpoint: {broken}.")
    if level == "partly_measured":
        yield Action("See what was left out and why.", f"llmtrap inspect {target} --all")
    if comparison is None and (grave or report.summary.with_traps):
        yield Action(
            "Is it new? Compare with the model that this one was tuned from.", f"llmtrap gate {target} --baseline BASE"
        )
    entries = next((held[kind] for kind in _ENTRIES if kind in held), None)
    if entries is not None:
        matrix = _word(entries.matrices[0], "") if entries.matrices else ""
        only = f" --matrix {matrix}" if matrix and entries.count == 1 else ""
        yield Action("Does the model need these entries? Take each out and see.", f"llmtrap ablate {target}{only}")
    if any(kind in held for kind in ("rare_entry", "rare_kurtosis")) and "broken_values" not in held:
        yield Action(
            "If they are damage, write a copy with the base's values; what the model needs is left.",
            f"llmtrap repair {target} --out REPAIRED --base BASE",
        )
    if grave or "heavy_tail" in held or "heavy_spectrum" in held:
        yield Action("Evaluate on data that it was not trained on: weights alone do not show whether it generalises.")
    ignored = [name for finding in grave if finding.kind in _TRAPS for name in finding.matrices[:_MOST_IGNORED]]
    plain = [name for name in dict.fromkeys(ignored) if _PLAIN.fullmatch(name)][:_MOST_IGNORED]
    if plain:
        yield Action("Looked at, and meant to be so? Say it in llmtrap.toml.", lines="\n\n".join(map(_ignore, plain)))
    if not grave and comparison is None and not report.summary.with_traps:
        yield Action(
            "Nothing needs doing. A fine-tune of it is judged against it with:",
            f"llmtrap gate TUNED --baseline {target}",
        )


_ENTRIES: Final[tuple[FindingKind, ...]] = ("rare_entry", "outlier_channel", "large_entries")
_TRAPS: Final[frozenset[FindingKind]] = frozenset({"rare_entry", "rare_kurtosis", "trapped_share"})


def _names(held: dict[FindingKind, Finding], *kinds: FindingKind) -> str:
    """The first matrices of these findings, where their names are plain."""
    found = [name for kind in kinds if kind in held for name in held[kind].matrices]
    plain = [name for name in found if _PLAIN.fullmatch(name)]
    if not found:
        return ""
    more = len(found) - len(plain[:5])
    shown = ", ".join(plain[:5]) or "the matrices listed above"
    return f"{shown} and {more} more" if plain and more else shown


def _ignore(name: str) -> str:
    return f'[[ignore]]\nrule = "LT001"\nmatch = "{name}"\nreason = "looked at by NAME: WHY"'


def _named(target: Target) -> str:
    """The target as a word of a command; one to fill in where it has no name that a shell can take."""
    return _NO_NAME if target.kind == "memory" else _word(target.name, _NO_NAME)


def _word(name: str, otherwise: str) -> str:
    """A name as one word of a command, where it is one to every shell and every page."""
    return name if _PLAIN.fullmatch(name) and not name.startswith("-") else otherwise
