"""Shuffles of a matrix drawn whole, by the package's own measurement: none of them is made of another."""

from __future__ import annotations

import numpy as np

from llmtrap.spectra.backends import NumpyBackend
from llmtrap.spectra.certificate import Bulk
from llmtrap.spectra.entries import HeldEntries, standardise
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import ShuffleCount, TrapSearch, edge_z, shuffle_once
from studies.validity.planting import Floats

RULE = "tracy-widom"


def entries_to_shuffle(matrix: Floats, bulk: Bulk) -> HeldEntries:
    """The entries of a matrix in units of its bulk."""
    standard = standardise(matrix, bulk)
    return HeldEntries(standard, (max(matrix.shape), min(matrix.shape)), float(np.abs(standard).max()))


def search_named(name: str, shuffles: int) -> TrapSearch:
    """Seeds that depend on the name alone."""
    return TrapSearch(name, 0, RULE, shuffles, "never")


def shuffled_whole(entries: HeldEntries, bulk: Bulk, search: TrapSearch) -> list[ShuffleCount]:
    """What each of the search's shuffles shows, the mean in place."""
    edge = EdgeLaw.of(*entries.shape).eigenvalue(edge_z(RULE, entries.shape))
    return [shuffle_once(entries, bulk, search, k, edge, NumpyBackend()).count for k in range(search.shuffles)]
