"""What was found in a model, each with how rare it is: from the gravest to what healthy models have too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from llmtrap.report.document import Channel, Finding, FindingKind, Matrix, Rarity, Report, TensorFinding, Weight
from llmtrap.report.facts import Tally, main_cause, state, tally, worst
from llmtrap.report.formatting import fixed, name_some, number, plural, printable
from llmtrap.report.rarity.channels import Entry, channels, large_entries
from llmtrap.report.rarity.measures import MEASURES, Measure
from llmtrap.report.rarity.noise import LEAST_SIDE, noise_layers
from llmtrap.report.rarity.peers import Departure, departures
from llmtrap.report.rarity.reference import PublishedModel, Reference
from llmtrap.report.rarity.standing import Range, Standing
from llmtrap.report.verdict import trap_words

MOST_NAMED: Final = 50  # ids that a finding lists; it counts all
LEAST_Z: Final = 5.0
"""Robust deviations from its peers that a rare departure must have: fewer come by chance in a model of thousands."""
_OF_THE_WHOLE: Final[frozenset[FindingKind]] = frozenset({"like_noise", "trapped_share", "heavy_spectrum"})
_MANY_TRAPPED: Final = 3  # matrices; and so many times the greatest published share
TIMES_THE_SHARE: Final = 2.0
_MOST_CHANNELS: Final = 3  # told one by one
_GRAVITY: Final[dict[Weight, int]] = {"broken": 0, "unusual": 1, "usual": 2}


def find(report: Report, reference: Reference | None) -> tuple[Finding, ...]:
    """Everything worth saying about a model's matrices, the gravest first.

    Without a reference nothing is called rare; traps then count as unusual, since nothing says otherwise.
    """
    standing = Standing(reference) if reference is not None else None
    found = [
        *_broken(report.matrices, report.tensors),
        *_noise(report.matrices, standing),
        *_Search(report.matrices, standing).findings(),
    ]
    return tuple(sorted(found, key=lambda finding: _GRAVITY[finding.weight]))


def rarity_words(rarity: Rarity | None, kind: FindingKind) -> str:
    """`none of 10 published models has as much`; empty without a reference.

    What a role is held against, fewer models have than what the whole model is: both numbers stand on one page, so the
    words say which is meant.
    """
    if rarity is None:
        return ""
    whose = "" if kind in _OF_THE_WHOLE else " with such a matrix"
    alike = "none" if rarity.alike == 0 else str(rarity.alike)
    return f"{alike} of {rarity.models} published models{whose} {'has' if rarity.alike <= 1 else 'have'} as much"


def _finding(
    kind: FindingKind,
    weight: Weight,
    text: str,
    matrices: Sequence[Matrix],
    rarity: Rarity | None = None,
    channel: Channel | None = None,
    share: float | None = None,
) -> Finding:
    ids = tuple(matrix.id for matrix in matrices)
    said = f"{text}; {rarity_words(rarity, kind)}." if rarity is not None else f"{text}."
    return Finding(
        kind=kind,
        weight=weight,
        text=said,
        count=len(ids),
        matrices=ids[:MOST_NAMED],
        rarity=rarity,
        channel=channel,
        share=share,
    )


def _broken(matrices: Sequence[Matrix], tensors: Sequence[TensorFinding]) -> Iterator[Finding]:
    bad = [m for m in matrices if m.non_finite is not None]
    if bad:
        yield _finding("broken_values", "broken", f"{_hold(bad)} NaN or infinite values", bad)
    zero = [m for m in matrices if m.all_zero]
    if zero:
        yield _finding("zeros", "unusual", f"{_hold(zero)} zeros alone", zero)
    for kind, weight, words, held in (
        ("broken_values", "broken", "NaN or infinite values", [t for t in tensors if not t.all_zero]),
        ("zeros", "unusual", "zeros alone", [t for t in tensors if t.all_zero]),
    ):
        if held:
            text = f"{plural(len(held), 'tensor')} beside the matrices {'holds' if len(held) == 1 else 'hold'} {words}."
            names = tuple(tensor.tensor for tensor in held[:MOST_NAMED])
            yield Finding(kind=kind, weight=weight, text=text, count=len(held), matrices=names)  # type: ignore[arg-type]


def _hold(matrices: Sequence[Matrix]) -> str:
    return f"{plural(len(matrices), 'matrix')} {'holds' if len(matrices) == 1 else 'hold'}"


def _noise(matrices: Sequence[Matrix], standing: Standing | None) -> Iterator[Finding]:
    layers = noise_layers(matrices)
    if not layers:
        return
    held = [matrix for layer in layers for matrix in layer]
    names = name_some([str(layer[0].layer) for layer in layers], 8)
    subject = f"Layer {names} looks" if len(layers) == 1 else f"Layers {names} look"
    rarity = None
    if standing is not None:
        rarity = standing.shares(lambda model: float(model.noise_layers)).rarity(float(len(layers)))
    text = f"{subject} like random numbers: in none of its matrices does the spectrum differ from that of noise"
    yield _finding(
        "like_noise",
        "unusual",
        text.replace("none of its", "none of their" if len(layers) > 1 else "none of its"),
        held,
        rarity,
    )


@dataclass(frozen=True)
class _Far:
    """One matrix in one measure, beyond what published models have."""

    matrix: Matrix
    text: str
    excess: float
    rarity: Rarity


class _Search:
    """The findings that come from comparing."""

    def __init__(self, matrices: Sequence[Matrix], standing: Standing | None):
        self._matrices = [m for m in matrices if m.non_finite is None and not m.all_zero]
        self._standing = standing
        self._counts: Tally = tally(matrices)

    @cached_property
    def _departures(self) -> dict[int, dict[Measure, Departure]]:
        return departures(self._matrices)

    def findings(self) -> Iterator[Finding]:
        rare = {
            "rare_entry": self._rare("max_sigmas"),
            "rare_kurtosis": self._rare("kurtosis"),
            "rare_norm": self._rare("spectral_norm"),
        }
        # An entry that far makes the kurtosis too: it is told once.
        told = {id(far.matrix) for far in rare["rare_entry"]}
        rare["rare_kurtosis"] = [far for far in rare["rare_kurtosis"] if id(far.matrix) not in told]
        for kind, far in rare.items():
            if far:
                more = f", and so in {plural(len(far) - 1, 'matrix')} more" if len(far) > 1 else ""
                text = far[0].text + more
                yield _finding(kind, "unusual", text, [item.matrix for item in far], far[0].rarity)  # type: ignore[arg-type]
        yield from self._trapped()
        yield from self._entries()
        yield from self._heavy()
        yield from self._over()
        yield from self._stand_out()

    def _rare(self, name: Measure) -> list[_Far]:
        """Matrices beyond the published ones of their role, by themselves or in how they depart from their peers."""
        found = []
        for index, matrix in enumerate(self._matrices):
            far = self._by_itself(matrix, name) or self._by_departure(matrix, self._departures.get(index, {}), name)
            if far is not None:
                found.append(far)
        return sorted(found, key=lambda far: -far.excess)

    def _by_itself(self, matrix: Matrix, name: Measure) -> _Far | None:
        measure = MEASURES[name]
        value = measure.of(matrix)
        outside = matrix.layer is None and name == "kurtosis" and matrix.role in BY_TOKEN
        if (
            value is None
            or measure.beyond is None
            or self._standing is None
            or outside
            or min(matrix.shape) < LEAST_SIDE
        ):
            return None
        known = self._standing.of(matrix.role, name, in_layers=matrix.layer is not None)
        known = known or self._standing.of(matrix.role, name)
        if known is None or value <= known.greatest + measure.beyond:
            return None
        there, most = number(measure.shown(value)), number(measure.shown(known.greatest))
        text = f"{_what(name, there, matrix)}; among published models the most in {_where(known)} is {most}"
        return _Far(matrix, text, value - known.greatest, known.rarity(value))

    def _by_departure(self, matrix: Matrix, apart: dict[Measure, Departure], name: Measure) -> _Far | None:
        measure, departure = MEASURES[name], apart.get(name)
        if departure is None or abs(departure.z) < LEAST_Z or self._standing is None or min(matrix.shape) < LEAST_SIDE:
            return None
        up = departure.by > 0
        limit = measure.apart if up else measure.below
        known = self._standing.of(matrix.role, name, "apart" if up else "below")
        if limit is None or known is None or abs(departure.by) <= known.greatest + limit:
            return None
        there, expected = number(measure.shown(departure.value)), number(measure.shown(departure.expected))
        times = number(10 ** abs(departure.by))
        most = number(10**known.greatest)
        text = (
            f"{_what(name, there, matrix)}, {times} times {'over' if up else 'under'} the {expected} of its peers; "
            f"among published models the most in {_where(known)} is {most} times"
        )
        return _Far(matrix, text, abs(departure.by) - known.greatest, known.rarity(abs(departure.by)))

    def _trapped(self) -> Iterator[Finding]:
        """Traps where nothing says how usual they are, or in so large a share of the matrices as nowhere else."""
        held = [m for m in worst(self._matrices) if state(m) == "trapped"]
        if not held:
            return
        text = trap_words(self._counts)
        if self._standing is None:
            yield _finding("trapped_share", "unusual", text, held)
            return
        known = self._standing.shares(trapped_share)
        share = len(held) / self._counts.matrices
        far = len(held) >= _MANY_TRAPPED and share > TIMES_THE_SHARE * known.greatest
        yield _finding("trapped_share", "unusual" if far else "usual", text, held, known.rarity(share))

    def _entries(self) -> Iterator[Finding]:
        groups, single = channels(large_entries(self._matrices))
        for channel, entries in groups[:_MOST_CHANNELS]:
            held = _matrices(entries)
            text = (
                f"{channel.axis.capitalize()} {channel.index:,} is an outlier channel: it holds large entries in "
                f"{plural(len(channel.layers), 'layer')} ({name_some([str(n) for n in channel.layers], 8)}), "
                f"{_reach(entries)}"
            )
            share = max(entry.share for entry in entries)
            yield _finding("outlier_channel", "usual", text, held, self._as_far(held), channel=channel, share=share)
        if len(groups) > _MOST_CHANNELS:
            more = [entry for _, entries in groups[_MOST_CHANNELS:] for entry in entries]
            text = f"{plural(len(groups) - _MOST_CHANNELS, 'outlier channel')} more, {_reach(more)}"
            yield _finding("outlier_channel", "usual", text, _matrices(more))
        if single:
            held = _matrices(single)
            first = single[0]
            candidate = (
                " (a candidate for an entry that the model needs: ablate it to know)"
                if _is_early_down(first.matrix, self._matrices)
                else ""
            )
            what = "A large entry makes a trap" if len(single) == 1 else f"{len(single):,} large entries make traps"
            text = f"{what}, the farthest in {printable(first.place, 200)}{candidate}, {_reach(single)}"
            share = max(entry.share for entry in single)
            yield _finding("large_entries", "usual", text, held, self._as_far(held), share=share)

    def _as_far(self, matrices: Sequence[Matrix]) -> Rarity | None:
        """How many published models have an entry as far in the role of the farthest."""
        return self._rarity(matrices, "max_sigmas")

    def _heavy(self) -> Iterator[Finding]:
        held = [m for m in worst(self._matrices) if state(m) == "trapped" and main_cause(m) == "heavy_tail"]
        if held:
            kurtosis = max((m.traps.kurtosis or 0.0) for m in held if m.traps is not None)
            have = "has" if len(held) == 1 else "have"
            text = f"{plural(len(held), 'matrix')} {have} heavy-tailed entries (kurtosis up to {number(kurtosis)})"
            yield _finding("heavy_tail", "usual", text, held, self._rarity(held, "kurtosis"))

    def _rarity(self, matrices: Sequence[Matrix], name: Measure) -> Rarity | None:
        have = [(value, m) for m in matrices if (value := MEASURES[name].of(m)) is not None]
        if self._standing is None or not have:
            return None
        value, matrix = max(have, key=lambda pair: pair[0])
        known = self._standing.of(matrix.role, name, in_layers=matrix.layer is not None)
        return known.rarity(value) if known is not None else None

    def _over(self) -> Iterator[Finding]:
        held = [m for m in self._matrices if m.alpha is not None and m.alpha.reliable and m.alpha.band == "over"]
        counts = self._counts
        unlike_noise = counts.over + counts.well + counts.under
        fitted = unlike_noise + counts.random
        if not held:
            return
        held.sort(key=lambda m: m.alpha.value if m.alpha is not None and m.alpha.value is not None else 0.0)
        rarity = None
        if self._standing is not None:
            rarity = self._standing.shares(over_share).rarity(len(held) / unlike_noise)
        lowest = held[0].alpha.value if held[0].alpha is not None else None
        among = f"{len(held):,} of {plural(fitted, 'matrix')}"
        text = f"α is below 2 (a very heavy tail) in {among}, the lowest {fixed(lowest)}"
        yield _finding("heavy_spectrum", "usual", text, held, rarity)

    def _stand_out(self) -> Iterator[Finding]:
        scores = {
            i: max(abs(d.z) for d in by.values() if d.stands_out)
            for i, by in self._departures.items()
            if any(d.stands_out for d in by.values())
        }
        if not scores:
            return
        order = sorted(scores, key=lambda i: -scores[i])
        held = [self._matrices[i] for i in order]
        name, departure = max(
            ((name, d) for name, d in self._departures[order[0]].items() if d.stands_out),
            key=lambda pair: abs(pair[1].z),
        )
        measure = MEASURES[name]
        text = (
            f"{plural(len(held), 'matrix')} {'stands' if len(held) == 1 else 'stand'} out from the others of "
            f"{'its' if len(held) == 1 else 'their'} role, most of all {printable(held[0].id, 200)}: {measure.label} "
            f"{number(measure.shown(departure.value))} where its peers lead one to expect "
            f"{number(measure.shown(departure.expected))} (z = {number(departure.z, 2)})"
        )
        yield _finding("stands_out", "usual", text, held)


BY_TOKEN: Final = frozenset({"embedding", "unembedding", "position_embedding", "positions"})
"""Roles whose rows are as different as tokens are: how uneven they are says little."""


def trapped_share(model: PublishedModel) -> float:
    """The share of a published model's matrices that have traps."""
    return model.with_traps / model.matrices if model.matrices else 0.0


def over_share(model: PublishedModel) -> float:
    """The share of a published model's reliable fits that lie below 2."""
    return model.over / model.alphas if model.alphas else 0.0


def _what(name: Measure, there: str, matrix: Matrix) -> str:
    place = printable(matrix.id, 200)
    if name == "max_sigmas":
        return f"{place} has an entry {there} standard deviations from the mean"
    if name == "kurtosis":
        return f"The entries of {place} are heavy-tailed, with a kurtosis of {there}"
    return f"{place} has a spectral norm of {there}"


def _where(known: Range) -> str:
    return "any role" if known.of_any_role else "this role"


def _matrices(entries: Iterable[Entry]) -> list[Matrix]:
    return list({id(entry.matrix): entry.matrix for entry in entries}.values())


def _reach(entries: Sequence[Entry]) -> str:
    far = max(entry.sigmas for entry in entries)
    share = max(entry.share for entry in entries)
    held = f"{number(100 * share, 2)} %" if share >= 1e-4 else "under 0.01 %"
    return f"up to {number(far)} standard deviations out and {held} of the matrix's variance"


def _is_early_down(matrix: Matrix, matrices: Sequence[Matrix]) -> bool:
    """Whether it projects back into the residual stream in the first quarter, where super weights were found."""
    layers = [m.layer for m in matrices if m.layer is not None]
    return matrix.role.endswith("mlp.down") and matrix.layer is not None and matrix.layer <= max(layers) / 4
