"""How much of a checkpoint a report speaks of, counted in parameters, and when that is too little for a clean word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, get_args

from llmtrap.report.document import Amount, Coverage, CoverageCounts, FailedMatrix, LeftOut, SkippedTensor
from llmtrap.report.formatting import plural, printable, size

PARTLY_ABOVE: Final = 0.02
"""The share of all parameters that may stay unmeasured beside biases and norms: above it nothing is called clean."""

KINDS: Final[tuple[LeftOut, ...]] = get_args(LeftOut)
_APART: Final[tuple[LeftOut, ...]] = ("table", "buffer", "file_not_read")
_NOT_POSSIBLE: Final[tuple[LeftOut, ...]] = ("unreadable", "unmeasured")

_LABELS: Final[dict[LeftOut, str]] = {
    "unmeasured": "not measured",
    "unreadable": "that could not be measured",
    "on_request": "left out on request",
    "table": "of positions, learned tokens or decays",
    "one_dimensional": "one-dimensional",
    "buffer": "of buffers (no parameters)",
    "file_not_read": "not looked at",
}


def count_coverage(
    planned: int, measured: Amount, skipped: Sequence[SkippedTensor], failed: Sequence[FailedMatrix]
) -> Coverage:
    """Sort every tensor of a checkpoint into its class.

    Args:
        planned: matrices that were to be measured.
        measured: those that were.
        skipped: tensors, matrices and files left out, each with its class.
        failed: matrices whose measurement failed; they count as unreadable.
    """
    failures = [Amount(count=1, parameters=item.parameters, bytes=item.bytes) for item in failed]
    left_out = {
        kind: _sum(Amount(count=1, parameters=s.parameters, bytes=s.bytes) for s in skipped if s.kind == kind)
        for kind in KINDS
    }
    left_out["unreadable"] = _sum(chain([left_out["unreadable"]], failures))
    counts = CoverageCounts(measured=measured, **left_out)
    total = parameters(counts)
    return Coverage(
        planned=planned,
        audited=measured.count,
        counts=counts,
        share=measured.parameters / total if total else None,
        skipped=tuple(skipped),
        failed=tuple(failed),
    )


def parameters(counts: CoverageCounts) -> int:
    """All parameters of weights and vectors: tables are counted apart, buffers are none, of files it is not known."""
    held = (counts.measured, *(getattr(counts, kind) for kind in KINDS if kind not in _APART))
    return sum(amount.parameters for amount in held)


def is_partial(coverage: Coverage) -> bool:
    """Whether too much was left out, asked for or not, to call the rest clean.

    So it is with anything unreadable, with an empty weight, and with over PARTLY_ABOVE of the parameters left out.
    A report of an older schema has no counts: there one tensor left out for an unknown reason is enough.
    """
    return is_incomplete(coverage) or _share(coverage, ("unmeasured", "on_request")) > PARTLY_ABOVE


def is_incomplete(coverage: Coverage) -> bool:
    """Whether too much could not be measured though it was asked for: what makes an audit end with exit code 3.

    What could not be read is too much however small it is, and so is a weight that is empty.
    """
    if coverage.failed or any(_is_alone_too_much(item) for item in coverage.skipped):
        return True
    return _share(coverage, ("unmeasured",)) > PARTLY_ABOVE


def _is_alone_too_much(item: SkippedTensor) -> bool:
    return item.kind == "unreadable" or (item.kind == "unmeasured" and item.parameters == 0)


def unmeasured_names(coverage: Coverage) -> tuple[str, ...]:
    """The tensors and matrices that could not be measured, the largest first."""
    items: list[SkippedTensor | FailedMatrix] = [s for s in coverage.skipped if s.kind in _NOT_POSSIBLE]
    items += coverage.failed
    return tuple(item.tensor for item in sorted(items, key=lambda item: -item.parameters))


def _failures(coverage: Coverage) -> tuple[int, Counter[str]]:
    """How many matrices failed, and how many of a part that is missing, by what is said of them."""
    absent = Counter(item.error for item in coverage.failed if item.error.startswith("not measured: "))
    return len(coverage.failed) - absent.total(), absent


def coverage_words(coverage: Coverage) -> str:
    """How much of the checkpoint was measured, and what was left out and why, in parameters."""
    text = f"{coverage.audited:,} of {plural(coverage.planned, 'matrix')} measured"
    failed, absent = _failures(coverage)
    if failed:
        text += f", {failed:,} failed"
    text += "".join(f", {count:,} {printable(reason, 120)}" for reason, count in absent.items())
    counts = coverage.counts
    if counts is None:
        if coverage.skipped:
            text += f"; {plural(len(coverage.skipped), 'tensor')} not audited, each with its reason"
        return f"{text}. The report is of an older schema and does not count parameters."
    total = parameters(counts)
    if total:
        text += f": {percent(counts.measured.parameters, total)} of {total:,} parameters"
    parts = [_part(kind, getattr(counts, kind), total) for kind in _LABELS]
    left_out = "; ".join(part for part in parts if part)
    return f"{text}. Left out: {left_out}." if left_out else f"{text}."


def share_words(coverage: Coverage) -> str:
    """The measured share for a table: `99.9 %`, or a dash where it is unknown."""
    counts = coverage.counts
    total = 0 if counts is None else parameters(counts)
    return percent(counts.measured.parameters, total) if counts is not None and total else "–"


def percent(part: int, whole: int) -> str:
    """A share, rounded so that neither all nor nothing is said of less or more: `100 %` is everything."""
    share = 100 * part / whole
    if part in (0, whole):
        return f"{share:.0f} %"
    digits = 0 if 10 <= share <= 90 else 2 if share < 1 or share > 99 else 1
    text = f"{share:.{digits}f}"
    if float(text) == 0:
        return f"under {10**-digits} %"
    return f"over {100 - 10**-digits:.{digits}f} %" if float(text) == 100 else f"{text} %"


def _part(kind: LeftOut, amount: Amount, total: int) -> str:
    if not amount.count:
        return ""
    if kind == "table":
        return f"{plural(amount.count, 'table')} {_LABELS[kind]} ({plural(amount.parameters, 'number')})"
    noun = "file" if kind == "file_not_read" else "tensor"
    if kind in ("buffer", "file_not_read"):
        return f"{plural(amount.count, noun)} {_LABELS[kind]}, {size(amount.bytes)}"
    share = percent(amount.parameters, total) if total else "0 %"
    return f"{plural(amount.count, noun)} {_LABELS[kind]} ({share})"


def _share(coverage: Coverage, kinds: Iterable[LeftOut]) -> float:
    if coverage.counts is None:
        return 0.0
    total = parameters(coverage.counts)
    return sum(getattr(coverage.counts, kind).parameters for kind in kinds) / total if total else 0.0


def _sum(amounts: Iterable[Amount]) -> Amount:
    count = held = taken = 0
    for amount in amounts:
        count, held, taken = count + amount.count, held + amount.parameters, taken + amount.bytes
    return Amount(count=count, parameters=held, bytes=taken)
