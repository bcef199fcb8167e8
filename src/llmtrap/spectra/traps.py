"""Correlation Traps: eigenvalues of the shuffled matrix beyond the edge that exchangeable entries would keep to.

Source: Prakash & Martin, arXiv 2602.02859 and 2605.12394; the edge is Johnstone's, or WeightWatcher's margin.
Everything here is in units of the bulk: entries are (w − m)/s, so that the edge depends on the shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend
from llmtrap.spectra.certificate import Bulk, entry_limit
from llmtrap.spectra.marchenko_pastur import BulkFit, MarchenkoPastur, compare_with_law
from llmtrap.spectra.shuffle import drawn_from_histogram, generator_for, shuffled_blocks
from llmtrap.spectra.suspects import Suspects
from llmtrap.spectra.tracy_widom import EdgeLaw, quantile_of_survival

Floats = NDArray[np.floating]

FALSE_ALARM = 1e-6
# A matrix this near the edge, in units of the Tracy–Widom scale, is shuffled again: its count may depend on the draw.
NEAR_EDGE = 4.0
RELIABLE_FROM_SIDE = 50
# Suspects begin a little inside the entry limit: noise can push an entry of 0.9 limits over the edge.
SUSPECT_FROM = 0.8
# Eigenvalues asked for at first, and then; a matrix with more traps has its whole spectrum computed.
TOP_COUNTS = (3, 16)
# Under this mean ratio the mean moves no eigenvalue by a tenth of the Tracy–Widom scale: centring changes no count.
NEGLIGIBLE_MEAN_RATIO = 0.01
# A float32 eigensolver is off by about 10⁻⁷·λ₁. Beyond this many Tracy–Widom scales that is a tenth of one, so the
# Gram matrix is float64, where it is nothing.
DOUBLE_BEYOND = 1e6
# Standardised entries are kept in float32: what is larger counts as this.
_GREATEST = 1e38
# Entries of a block of a shuffle: enough rows that its Gram matrix is as fast as that of the whole.
BLOCK_ENTRIES = 1 << 22


class Entries(Protocol):
    """The entries of one matrix, centred and in units of the bulk's deviation, to be shuffled.

    `shape` is N × M with N ≥ M: after a shuffle the orientation means nothing.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """N and M."""
        ...

    @property
    def largest(self) -> float:
        """The largest |entry|."""
        ...

    def shuffled_blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield the rows of one shuffle R as float32 [n, M] arrays that the caller may overwrite."""
        ...


@dataclass(frozen=True)
class HeldEntries:
    """Entries in memory, flat or as a matrix."""

    values: Floats
    shape: tuple[int, int]
    largest: float

    def shuffled_blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Blocks of rows, never the whole."""
        for block in shuffled_blocks(self.values, _block_entries(self.shape[1]), rng):
            yield block.reshape(-1, self.shape[1])


@dataclass(frozen=True)
class CountedEntries:
    """Entries known by how often each value occurs."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    shape: tuple[int, int]
    largest: float

    def shuffled_blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Blocks of rows, never the whole."""
        for block in drawn_from_histogram(self.values, self.counts, _block_entries(self.shape[1]), rng):
            yield block.reshape(-1, self.shape[1])


def _block_entries(columns: int) -> int:
    return max(1, BLOCK_ENTRIES // columns) * columns


def standardise(entries: Floats, bulk: Bulk) -> NDArray[np.float32]:
    """(w − m)/s as float32, through float64 where m or s leave float32's safe range.

    The same entry gives the same bits wherever it is standardised, so that an entry of a shuffle can be recognised.
    """
    wide = entries.dtype == np.float64 or not 1e-30 < bulk.deviation < 1e30 or abs(bulk.mean) > bulk.deviation
    kind = np.float64 if wide else np.float32
    centred = np.subtract(entries, kind(bulk.mean), dtype=kind)
    with np.errstate(over="ignore"):
        centred /= kind(bulk.deviation)
    return np.clip(centred, -_GREATEST, _GREATEST, out=centred).astype(np.float32, copy=False)


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
    """What one shuffle showed: traps with the mean in place, traps with it removed, and z of the largest eigenvalue."""

    count: int
    centred: int
    top_z: float

    @property
    def mean_shift(self) -> int:
        """Traps that go away with the mean."""
        return max(self.count - self.centred, 0)


@dataclass(frozen=True)
class ShuffledGram:
    """Gram matrix of one shuffle without the mean and with it, with the eigenvalues beyond the edge of each.

    `precision` is the Gram matrices' float width; `suspects` are the entries that may have made the eigenvalues, noted
    of the first shuffle alone.
    """

    centred: Array
    whole: Array
    centred_top: NDArray[np.float64]
    whole_top: NDArray[np.float64]
    count: ShuffleCount
    precision: str
    suspects: Suspects


@dataclass(frozen=True)
class TrapMeasurement:
    """All shuffles of one matrix. `bulk_fit` and `spectrum` (λ in units of s²) belong to the first, where wanted."""

    counts: tuple[ShuffleCount, ...]
    first: ShuffledGram
    edge: float
    law: EdgeLaw
    bulk_fit: BulkFit | None
    spectrum: NDArray[np.float64] | None


@dataclass(frozen=True)
class TrapSearch:
    """How to look for traps in one matrix: the seeds, the rule and the number of shuffles."""

    matrix_id: str
    seed: int
    rule: str
    shuffles: int
    whole_spectrum: bool

    def generator(self, shuffle: int) -> np.random.Generator:
        """The generator of one shuffle; the same numbers each time it is asked for."""
        return generator_for(self.seed, self.matrix_id, shuffle)

    def start_vector(self, size: int) -> NDArray[np.float64]:
        """Where iterations start: seeded, so that two runs agree to the last bit."""
        return generator_for(self.seed, self.matrix_id, -1 & 0xFFFFFFFF).standard_normal(size)


def measure_traps(entries: Entries, bulk: Bulk, search: TrapSearch, backend: Backend) -> TrapMeasurement:
    """Shuffle once; more often where there is a trap or the largest eigenvalue lies near the edge."""
    law = EdgeLaw.of(*entries.shape)
    z_edge = edge_z(search.rule, entries.shape)
    edge = law.eigenvalue(z_edge)
    first = shuffle_once(entries, bulk, search, 0, edge, backend)
    counts = [first.count]
    if first.count.count > 0 or first.count.centred > 0 or first.count.top_z > z_edge - NEAR_EDGE:
        counts += [
            shuffle_once(entries, bulk, search, k, edge, backend).count for k in range(1, max(search.shuffles, 1))
        ]
    spectrum, fit = None, None
    if search.whole_spectrum or first.count.count > 0:
        n, m = entries.shape
        # A copy by a rank-two update of nothing: the eigensolver may destroy what it is given.
        nothing = np.zeros(m)
        spectrum = np.sort(np.clip(backend.eigenvalues(backend.add_rank_two(first.whole, nothing, nothing)), 0.0, None))
        bulk_values = spectrum[spectrum <= edge] / n
        fit = compare_with_law(bulk_values, MarchenkoPastur(1.0, m / n))
    return TrapMeasurement(tuple(counts), first, edge, law, fit, spectrum)


def shuffle_once(
    entries: Entries, bulk: Bulk, search: TrapSearch, shuffle: int, edge: float, backend: Backend
) -> ShuffledGram:
    """Draw one shuffle and count its eigenvalues beyond the edge, with the mean and without."""
    n, m = entries.shape
    law = EdgeLaw.of(n, m)
    mean = bulk.mean / bulk.deviation
    # One entry makes an eigenvalue of its square, and the mean one of m²NM.
    foremost = max(entries.largest**2, mean**2 * n * m)
    precision = "float64" if foremost > DOUBLE_BEYOND * law.scale else "float32"
    # Where even that is too coarse to see the edge beside the foremost eigenvalue, nothing is called from noise.
    edge = max(edge, m * float(np.finfo(precision).eps) * foremost)
    suspects = Suspects(SUSPECT_FROM * entry_limit(n, m))
    blocks = entries.shuffled_blocks(search.generator(shuffle))
    # The first shuffle is the one whose traps are explained.
    gram, sums = gram_of(suspects.watch(blocks) if shuffle == 0 else blocks, m, backend, precision)
    # R = R' + t·11ᵀ with R' centred: the mean comes back as a rank-two change of the Gram matrix.
    ones = np.ones(m)
    whole = backend.add_rank_two(gram, mean * ones, sums + 0.5 * n * mean * ones)
    start = search.start_vector(m)
    whole_top = eigenvalues_beyond(backend, whole, edge, start)
    negligible = mean**2 * math.sqrt(n * m) < NEGLIGIBLE_MEAN_RATIO
    centred_top = whole_top if negligible else eigenvalues_beyond(backend, gram, edge, start)
    count = ShuffleCount(int((whole_top > edge).sum()), int((centred_top > edge).sum()), law.z(float(whole_top[0])))
    return ShuffledGram(gram, whole, centred_top, whole_top, count, precision, suspects)


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


def eigenvalues_beyond(backend: Backend, gram: Array, edge: float, start: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest eigenvalues, descending: all that lie beyond the edge and at least one more."""
    size = int(gram.shape[0])
    for count in (*(k for k in TOP_COUNTS if k < size), size):
        values, _ = backend.top_eigenpairs(gram, count, start, vectors=False)
        if values[-1] <= edge:
            break
    return values
