"""More shuffles of a matrix for little more than one: its few far entries go to new places, the rest stays.

A count of traps differs between shuffles by where the far entries fall, as long as the rest makes no trap in any order,
which its certificate says. So a further shuffle need not draw the rest anew: it takes the first one and exchanges the
far entries with whatever lies at freshly drawn places. Each shuffle made so is by itself a uniformly random
permutation: the new places are uniform and know nothing of the first, and given them the rest is in uniform order as it
was before. Two of them share the order of the rest. Their Gram matrices differ by a sparse update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from llmtrap.spectra.certificate import entry_limit, makes_no_trap
from llmtrap.spectra.entries import Entries

Floats = NDArray[np.floating]

# An entry is far from this fraction of the entry limit on.
FAR_FROM = 0.25
# Share of the entries that may be far: with more, the sparse update costs as much as another Gram matrix.
MOST_FAR = 0.003
# Bytes of the updates that are gathered in one pass.
GATHERED_BYTES = 1 << 28
# Places drawn at a time; a constant, so that how many are wanted does not change the sequence.
_DRAWN_AT_ONCE = 1 << 12


class Rearrangements:
    """Shuffles 1, 2, … of a matrix, made of its shuffle 0.

    Args:
        shape: N × M, N ≥ M.
        far: the far entries in any order.
        distance: the least size of a far entry.
        generators: one a further shuffle, which draws its places.
        by_rank: whether the far entry of a rank goes to the same place however many there are.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        far: NDArray[np.float32],
        distance: float,
        generators: Sequence[np.random.Generator],
        *,
        by_rank: bool = False,
    ):
        self._shape = shape
        self._distance = distance
        self._home = _Sparse()
        self._places: list[NDArray[np.int64]] = []
        self._comes: list[NDArray[np.float32]] = []
        if by_rank:
            far = far[np.argsort(-np.abs(far), kind="stable")]
        for rng in generators:
            size = shape[0] * shape[1]
            places = distinct_places(size, far.size, rng) if by_rank else rng.choice(size, far.size, replace=False)
            order = np.argsort(places)
            self._places.append(places[order])
            self._comes.append(far[order])
        self._goes = [np.zeros(far.size, dtype=np.float32) for _ in generators]

    @classmethod
    def of(
        cls, entries: Entries, generators: Sequence[np.random.Generator], *, by_rank: bool = False
    ) -> Rearrangements | None:
        """One further shuffle a generator; None where they must be drawn whole.

        That is where no entry is far, where many are, and where the rest is not certified.
        """
        n, m = entries.shape
        # As float32, in which the blocks are compared with it: what is far must be far everywhere.
        distance = float(np.float32(FAR_FROM * entry_limit(n, m)))
        if not generators or entries.largest < distance:
            return None
        split = entries.split(distance, int(MOST_FAR * n * m))
        if split is None or not makes_no_trap(entries.shape, split[1]):
            return None
        return cls(entries.shape, split[0], distance, generators, by_rank=by_rank)

    def watch(self, blocks: Iterator[Floats]) -> Iterator[Floats]:
        """Pass the blocks of the first shuffle on, noting where its far entries lie and what lies at the new places."""
        start = 0
        for block in blocks:
            flat = block.reshape(-1)
            here = np.flatnonzero((flat >= self._distance) | (flat <= -self._distance))
            self._home.note(here + start, flat[here])
            for places, goes in zip(self._places, self._goes, strict=True):
                low, high = np.searchsorted(places, [start, start + flat.size])
                goes[low:high] = flat[places[low:high] - start]
            start += flat.size
            yield block

    def changes(
        self, blocks: Callable[[], Iterator[Floats]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
        """For each further shuffle, what its Gram matrix and its column sums have more than the first one's.

        Args:
            blocks: gives the first shuffle once more.
        """
        m = self._shape[1]
        at_once = max(1, GATHERED_BYTES // (4 * m * m))
        for start in range(0, len(self._places), at_once):
            differences = [self.difference(k) for k in range(start, min(start + at_once, len(self._places)))]
            crossed = [np.zeros((m, m), dtype=np.float32) for _ in differences]
            top = 0
            for block in blocks():
                for difference, cross in zip(differences, crossed, strict=True):
                    _add_product(cross, difference[top : top + block.shape[0]], block)
                top += block.shape[0]
            for difference in differences:
                # (R + E)ᵀ(R + E) = RᵀR + EᵀR + (EᵀR)ᵀ + EᵀE
                gram = (difference.T @ difference).toarray()
                cross = crossed.pop(0)
                gram += cross
                gram += cross.T
                del cross
                yield gram, np.asarray(difference.sum(axis=0, dtype=np.float64)).reshape(-1)

    def difference(self, number: int) -> sparse.csr_array:
        """E, what further shuffle `number` (from 0) has more than the first, N × M: not 0 at few places."""
        places, comes, goes = self._places[number], self._comes[number], self._goes[number]
        home, stood = self._home.places, self._home.values
        left = ~np.isin(home, places)
        # What the far entries push out of their new places goes, in order, to the places they have left.
        pushed = goes[~np.isin(places, home)]
        change = np.concatenate([comes - goes, pushed - stood[left]])
        at = np.divmod(np.concatenate([places, home[left]]), self._shape[1])
        return sparse.csr_array((change, at), shape=self._shape)


def distinct_places(size: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The first `count` of a sequence of distinct uniformly random places: with a larger count it only goes on.

    `count` must be well below `size`: draws that come twice are dropped.
    """
    drawn = np.zeros(0, dtype=np.int64)
    while True:
        drawn = np.concatenate([drawn, rng.integers(0, size, _DRAWN_AT_ONCE)])
        _, first = np.unique(drawn, return_index=True)
        if first.size >= count:
            return drawn[np.sort(first)[:count]]


class _Sparse:
    """Places in ascending order and what stands there, noted piece by piece."""

    def __init__(self) -> None:
        self._places: list[NDArray[np.int64]] = []
        self._values: list[Floats] = []

    def note(self, places: NDArray[np.int64], values: Floats) -> None:
        """Take in places beyond those noted before."""
        self._places.append(places)
        self._values.append(values)

    @property
    def places(self) -> NDArray[np.int64]:
        """All of them."""
        return np.concatenate(self._places)

    @property
    def values(self) -> Floats:
        """What stands at each."""
        return np.concatenate(self._values)


def _add_product(cross: NDArray[np.float32], difference: sparse.csr_array, block: Floats) -> None:
    """Add differenceᵀ·block; only rows of columns that differ are touched, where those are few."""
    columns = np.unique(difference.indices)
    if 2 * columns.size > cross.shape[0]:
        cross += difference.T @ block
    elif columns.size:
        cross[columns] += difference[:, columns].T @ block
