"""Correlation Traps: eigenvalues of the shuffled matrix beyond the edge that exchangeable entries would keep to.

Source: Prakash & Martin, arXiv 2602.02859 and 2605.12394; the edge is Johnstone's, or WeightWatcher's margin.
Everything here is in units of the bulk: entries are (w − m)/s, so that the edge depends on the shape alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend
from llmtrap.spectra.certificate import MEAN_RATIO_LIMIT, Bulk, entry_limit
from llmtrap.spectra.entries import Entries
from llmtrap.spectra.marchenko_pastur import BulkFit, MarchenkoPastur, compare_with_law
from llmtrap.spectra.rearranged import Rearrangements
from llmtrap.spectra.shuffle import generator_for
from llmtrap.spectra.suspects import Suspects
from llmtrap.spectra.tracy_widom import EdgeLaw, quantile_of_survival

Floats = NDArray[np.floating]
SpectrumWanted = Literal["always", "trapped", "never"]

FALSE_ALARM = 1e-6
# A matrix this near the edge, in units of the Tracy–Widom scale, is shuffled again: its count may depend on the draw.
NEAR_EDGE = 4.0
RELIABLE_FROM_SIDE = 50
# Suspects begin a little inside the entry limit: noise can push an entry of 0.9 limits over the edge.
SUSPECT_FROM = 0.8
# Eigenvalues computed one by one; of a matrix with more traps the others are counted.
TOP_COUNT = 3
# Under this mean ratio the mean moves no eigenvalue by a tenth of the Tracy–Widom scale: centring changes no count.
NEGLIGIBLE_MEAN_RATIO = 0.01
# A float32 eigensolver is off by about 10⁻⁷·λ₁. Beyond this many Tracy–Widom scales that is a tenth of one, so the
# Gram matrix is float64, where it is nothing.
DOUBLE_BEYOND = 1e6


def edge_z(rule: str, shape: tuple[int, int]) -> float:
    """Where the rule's edge stands, in Tracy–Widom units z.

    `tracy-widom`: tail probability 10⁻⁶, z ≈ 6.2 for every shape. `weightwatcher`: λ₊ + √(λ₊^⅔ M^(−⅔)/√Q) for
    eigenvalues of RᵀR/N with unit variance, λ₊ = (1 + 1/√Q)².
    """
    if rule == "tracy-widom":
        return quantile_of_survival(FALSE_ALARM)
    n, m = max(shape), min(shape)
    upper = (1 + math.sqrt(m / n)) ** 2
    margin = math.sqrt(upper ** (2 / 3) * m ** (-2 / 3) * math.sqrt(m / n))
    return EdgeLaw.of(n, m).z(n * (upper + margin))


@dataclass(frozen=True)
class ShuffleCount:
    """What one shuffle showed: traps with the mean and with it removed, and z of either's largest eigenvalue."""

    count: int
    centred: int
    top_z: float
    centred_z: float

    @property
    def mean_shift(self) -> int:
        """Traps that go away with the mean."""
        return max(self.count - self.centred, 0)


@dataclass(frozen=True)
class ShuffledGram:
    """Gram matrix of one shuffle without the mean and with it, and its column sums without the mean.

    `precision` is the Gram matrices' float width.
    """

    centred: Array
    whole: Array
    sums: NDArray[np.float64]
    count: ShuffleCount
    precision: str


@dataclass(frozen=True)
class TrapMeasurement:
    """All shuffles of one matrix.

    Of the first: its Gram matrix, the `suspects` that may have made its traps, and where they were wanted its whole
    `spectrum` (λ in units of s²) and how the bulk of that fits.
    """

    counts: tuple[ShuffleCount, ...]
    first: ShuffledGram
    suspects: Suspects
    edge: float
    law: EdgeLaw
    bulk_fit: BulkFit | None
    spectrum: NDArray[np.float64] | None


@dataclass(frozen=True)
class TrapSearch:
    """How to look for traps in one matrix: the seeds, the rule, the number of shuffles, and whose spectrum is wanted.

    `spectrum` is 'always', 'trapped' (of a matrix with traps) or 'never'. `paired`: another version of the matrix must
    see the same shuffles. `in_doubt`: the number of shuffles where the first ones leave doubt.
    """

    matrix_id: str
    seed: int
    rule: str
    shuffles: int
    spectrum: SpectrumWanted
    paired: bool = False
    in_doubt: int = 0

    def generator(self, shuffle: int) -> np.random.Generator:
        """The generator of one shuffle; the same numbers each time it is asked for."""
        return generator_for(self.seed, self.matrix_id, shuffle)

    def start_vector(self, size: int) -> NDArray[np.float64]:
        """Where iterations start: seeded, so that two runs agree to the last bit."""
        return generator_for(self.seed, self.matrix_id, -1 & 0xFFFFFFFF).standard_normal(size)


def measure_traps(entries: Entries, bulk: Bulk, search: TrapSearch, backend: Backend) -> TrapMeasurement:
    """Shuffle once; more often where there is a trap or the largest eigenvalue lies near the edge.

    And many times more where those leave doubt whether every shuffle shows a trap.
    """
    n, m = entries.shape
    law = EdgeLaw.of(n, m)
    z_edge = edge_z(search.rule, entries.shape)
    counting = _Counting(entries, bulk, search, law.eigenvalue(z_edge), backend)
    suspects = Suspects(SUSPECT_FROM * entry_limit(n, m))
    blocks = entries.shuffled_blocks(search.generator(0))
    if entries.largest >= suspects.threshold:
        blocks = suspects.watch(blocks)
    rearranged = counting.rearrangements()
    first = counting.of_blocks(blocks if rearranged is None else rearranged.watch(blocks))
    counts = [first.count]
    if first.count.count > 0 or first.count.centred > 0 or first.count.top_z > z_edge - NEAR_EDGE:
        counts += counting.further(first, rearranged)
        if len(counts) < search.in_doubt and leaves_doubt(counts, z_edge):
            counts += counting.still_further(first)
    spectrum, fit = None, None
    if search.spectrum == "always" or (search.spectrum == "trapped" and first.count.count > 0):
        # A copy by a rank-two update of nothing: the eigensolver may destroy what it is given.
        nothing = np.zeros(m)
        spectrum = np.sort(np.clip(backend.eigenvalues(backend.add_rank_two(first.whole, nothing, nothing)), 0.0, None))
        bulk_values = spectrum[spectrum <= counting.edge] / n
        fit = compare_with_law(bulk_values, MarchenkoPastur(1.0, m / n))
    return TrapMeasurement(tuple(counts), first, suspects, counting.edge, law, fit, spectrum)


def leaves_doubt(counts: Sequence[ShuffleCount], z_edge: float) -> bool:
    """Whether it may depend on the shuffles drawn that all of them show a trap, or a centred one.

    Where some show it and some do not, or where all do and one of them only just.
    """
    centred = [count.centred for count in counts]
    if min(count.count for count in counts) == 0 < max(count.count for count in counts):
        return True
    if min(centred) == 0:
        return max(centred) > 0
    return min(count.centred_z for count in counts) < z_edge + NEAR_EDGE


def shuffle_once(
    entries: Entries, bulk: Bulk, search: TrapSearch, shuffle: int, edge: float, backend: Backend
) -> ShuffledGram:
    """Draw one shuffle whole and count its eigenvalues beyond the edge, with the mean and without."""
    blocks = entries.shuffled_blocks(search.generator(shuffle))
    return _Counting(entries, bulk, search, edge, backend).of_blocks(blocks)


class _Counting:
    """From the rows of a shuffle to its traps, with the mean in place and without."""

    def __init__(self, entries: Entries, bulk: Bulk, search: TrapSearch, edge: float, backend: Backend):
        n, m = entries.shape
        self.edge = edge
        self._entries = entries
        self._search = search
        self._backend = backend
        self._law = EdgeLaw.of(n, m)
        self._mean = bulk.mean / bulk.deviation
        # One entry makes an eigenvalue of its square, and the mean one of m²NM.
        foremost = max(entries.largest**2, self._mean**2 * n * m)
        self._precision = "float64" if foremost > DOUBLE_BEYOND * self._law.scale else "float32"
        # Where even that is too coarse to see the edge beside the foremost eigenvalue, nothing is called from noise.
        self._seen_from = max(edge, m * float(np.finfo(self._precision).eps) * foremost)

    def of_blocks(self, blocks: Iterator[Floats]) -> ShuffledGram:
        """Of a shuffle whose rows come by blocks."""
        gram, sums = gram_of(blocks, self._entries.shape[1], self._backend, self._precision)
        return self._of_gram(gram, sums)

    def rearrangements(self) -> Rearrangements | None:
        """The further shuffles as rearrangements of the first, where those tell as much as shuffles drawn whole."""
        return self._rearranged(range(1, self._search.shuffles))

    def _rearranged(self, numbers: range) -> Rearrangements | None:
        n, m = self._entries.shape
        # A mean's trap differs by where the rest falls; and a huge entry's square leaves a hole when it is taken away.
        if self._mean**2 * math.sqrt(n * m) >= MEAN_RATIO_LIMIT or self._precision != "float32":
            return None
        generators = [self._search.generator(k) for k in numbers]
        return Rearrangements.of(self._entries, generators, by_rank=self._search.paired)

    def further(self, first: ShuffledGram, rearranged: Rearrangements | None) -> list[ShuffleCount]:
        """Of the search's further shuffles: rearrangements of the first, or else drawn whole."""
        return self._counts(first, rearranged, range(1, self._search.shuffles))

    def still_further(self, first: ShuffledGram) -> list[ShuffleCount]:
        """Of those that are only drawn where the others leave doubt."""
        numbers = range(self._search.shuffles, self._search.in_doubt)
        rearranged = self._rearranged(numbers)
        if rearranged is not None:
            deque(rearranged.watch(self._entries.shuffled_blocks(self._search.generator(0))), maxlen=0)
        return self._counts(first, rearranged, numbers)

    def _counts(self, first: ShuffledGram, rearranged: Rearrangements | None, numbers: range) -> list[ShuffleCount]:
        draw, search = self._entries.shuffled_blocks, self._search
        if rearranged is None:
            return [self.of_blocks(draw(search.generator(k))).count for k in numbers]
        return [
            self._of_gram(self._backend.add_symmetric(first.centred, gram), first.sums + sums).count
            for gram, sums in rearranged.changes(lambda: draw(search.generator(0)))
        ]

    def _of_gram(self, gram: Array, sums: NDArray[np.float64]) -> ShuffledGram:
        n, m = self._entries.shape
        # R = R' + t·11ᵀ with R' centred: the mean comes back as a rank-two change of the Gram matrix.
        ones = np.ones(m)
        whole = self._backend.add_rank_two(gram, self._mean * ones, sums + 0.5 * n * self._mean * ones)
        start = self._search.start_vector(m)
        count, top = count_beyond(self._backend, whole, self._seen_from, start)
        negligible = self._mean**2 * math.sqrt(n * m) < NEGLIGIBLE_MEAN_RATIO
        centred, of_centred = (count, top) if negligible else count_beyond(self._backend, gram, self._seen_from, start)
        counted = ShuffleCount(count, centred, self._law.z(top), self._law.z(of_centred))
        return ShuffledGram(gram, whole, sums, counted, self._precision)


def gram_of(
    blocks: Iterator[Floats], columns: int, backend: Backend, precision: str = "float32"
) -> tuple[Array, NDArray[np.float64]]:
    """Gram matrix and column sums of a shuffle."""
    gram = backend.gram(columns, precision)
    sums = np.zeros(columns)
    for block in blocks:
        device = backend.from_host(block)
        gram = backend.add_gram(gram, device)
        sums += backend.column_sums(device)
    return gram, sums


def count_beyond(backend: Backend, gram: Array, edge: float, start: NDArray[np.float64]) -> tuple[int, float]:
    """How many eigenvalues lie beyond the edge, and the largest of all."""
    top, _ = backend.top_eigenpairs(gram, min(TOP_COUNT, int(gram.shape[0])), start, vectors=False)
    count = int((top > edge).sum())
    return (count if count < top.size else backend.count_above(gram, edge)), float(top[0])
