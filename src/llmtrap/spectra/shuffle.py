"""Uniformly random permutations of all entries of a matrix, drawn fast and by blocks.

Two ways give the same law, and neither holds the whole shuffle. Entries in memory are dealt into cache-sized buckets
and each bucket is permuted (the Rao–Sandelius shuffle: six times as fast here as a permutation of the whole, which
misses the cache at every step). Entries known only by their histogram are drawn without replacement, a block at a time,
and the most of a block by independent draws from a table: three to five times as fast again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# Entries of a bucket: its values and the order they take fit a core's cache.
BUCKET = 1 << 16
# Entries dealt at a time: large, so that each bucket receives long runs.
HAND = 1 << 18
# A block of so many entries and more is drawn from a table; making one does not pay for fewer.
TABLE_FROM = 1 << 18
# NumPy's multivariate hypergeometric draws take fewer entries than this.
MOST_DRAWN = 1_000_000_000
# Standard deviations by which more entries are taken at first than are wanted: too few come once in many millions.
SPARE_DRAWS = 6.0
# Slots of the table: one for each value of 16 random bits.
SLOTS = 1 << 16
# The table draws each value by so many standard deviations less often than it occurs, so that hardly ever one is drawn
# too often; what it leaves open beyond this share of a block is dealt at once.
SHORTFALL, MOST_OPEN = 5.0, 0.5


def generator_for(audit_seed: int, matrix_id: str, shuffle: int) -> np.random.Generator:
    """The random generator of one shuffle: never from a worker or an order of work.

    Any number of workers therefore draws the same shuffles, and adding a matrix to a checkpoint changes no other's.
    """
    digest = hashlib.blake2b(matrix_id.encode(), digest_size=16).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([audit_seed, *words, shuffle])))


def shuffled(entries: Floats, rng: np.random.Generator) -> Floats:
    """Return the entries, flat, in uniformly random order. The argument is kept."""
    (whole,) = shuffled_blocks(entries, entries.size, rng) if entries.size else (entries.reshape(-1),)
    return whole


def shuffled_blocks(entries: Floats, block: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield the entries in uniformly random order, `block` at a time, in an array that the next block overwrites."""
    flat = np.ascontiguousarray(entries).reshape(-1)
    buckets = -(-flat.size // BUCKET)
    dealt = _deal(flat, buckets, rng) if buckets > 1 else iter([[flat]])
    out = np.empty(min(block, flat.size), dtype=flat.dtype)
    filled = 0
    for pieces in dealt:
        bucket = np.concatenate(pieces)
        # The order is within the bucket, so no index is clipped: the mode spares NumPy a buffered copy.
        bucket = np.take(bucket, rng.permutation(bucket.size), mode="clip")
        while bucket.size:
            taken, bucket = bucket[: out.size - filled], bucket[out.size - filled :]
            out[filled : filled + taken.size] = taken
            filled += taken.size
            if filled == out.size:
                yield out
                filled = 0
    if filled:
        yield out[:filled]


def drawn_from_histogram(
    values: NDArray[np.float64], counts: NDArray[np.int64], block: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """Yield the entries of a histogram in uniformly random order, `block` at a time, as float32.

    How often each value falls into a block is multivariate hypergeometric; within the block the order is shuffled.
    """
    present = counts > 0
    singles, left = values[present].astype(np.float32), counts[present].astype(np.int64)
    remaining = int(left.sum())
    while remaining:
        size = min(block, remaining)
        taken = left if size == remaining else _drawn(left, size, rng)
        left = left - taken
        remaining -= size
        yield _arranged(singles, taken, rng)


def _drawn(counts: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each value comes among `size` entries drawn without replacement: multivariate hypergeometric.

    NumPy draws that from fewer than MOST_DRAWN entries. From more, each is first taken with a chance that hardly ever
    takes too few, and what is too many is drawn out again. Of as many as were taken each set was as likely, and so is
    each of those that are left.
    """
    total = int(counts.sum())
    if total < MOST_DRAWN:
        drawn: NDArray[np.int64] = rng.multivariate_hypergeometric(counts, size, method="marginals")
        return drawn
    chance = min(1.0, (size + SPARE_DRAWS * math.sqrt(size)) / total)
    while True:
        taken: NDArray[np.int64] = rng.binomial(counts, chance)
        excess = int(taken.sum()) - size
        if excess >= 0:
            return taken - rng.multivariate_hypergeometric(taken, excess, method="marginals")


def _arranged(values: NDArray[np.float32], counts: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """The values, each as often as it counts, in uniformly random order.

    Every place draws a slot of a table on its own: a value, or nothing. A block in which no value came up more often
    than it may is kept, and the places left open take what is missing, arranged alike; another block is drawn anew.
    Uniform: draws, condition and filling treat all places alike, and at the end the counts are right.
    """
    size = int(counts.sum())
    slots = (np.maximum(counts - SHORTFALL * np.sqrt(counts), 0.0) * (SLOTS / max(size, 1))).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum(slots)])
    used = int(bounds[-1])
    if size < TABLE_FROM or used < (1 - MOST_OPEN) * SLOTS:
        return shuffled(np.repeat(values, counts), rng)
    table = np.zeros(SLOTS, dtype=np.float32)
    table[:used] = np.repeat(values, slots)
    out = np.empty(size, dtype=np.float32)
    while True:
        times, still_open = _draw_slots(table, used, out, rng)
        drawn = np.diff(np.concatenate([[0], np.cumsum(times)])[bounds])
        if (drawn <= counts).all():
            out[still_open] = _arranged(values, counts - drawn, rng)
            return out


def _draw_slots(
    table: NDArray[np.float32], used: int, out: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fill `out` from independent uniformly random slots; return how often each came, and the places of unused ones."""
    words = np.asarray(rng.bit_generator.random_raw(-(-out.size // 4))).view(np.uint16)[: out.size]
    times = np.zeros(SLOTS, dtype=np.int64)
    places = []
    # By pieces that stay in the cache through all three steps.
    for start in range(0, out.size, BUCKET):
        piece = words[start : start + BUCKET]
        times += np.bincount(piece, minlength=SLOTS)
        np.take(table, piece, out=out[start : start + BUCKET], mode="clip")
        places.append(np.flatnonzero(piece >= used) + start)
    return times, np.concatenate(places)


def _deal(flat: Floats, buckets: int, rng: np.random.Generator) -> Iterator[list[Floats]]:
    """Send each entry to an independent uniformly random bucket; yield each bucket's entries, hand by hand."""
    kind = np.uint8 if buckets <= 256 else np.uint16
    digits = rng.integers(0, buckets, size=flat.size, dtype=kind)
    numbers = np.arange(buckets + 1)
    hands: list[tuple[Floats, list[int]]] = []
    for first in range(0, flat.size, HAND):
        piece = digits[first : first + HAND]
        order = np.argsort(piece, kind="stable")
        bounds = np.searchsorted(piece[order], numbers).tolist()
        hands.append((flat[first : first + HAND][order], bounds))
    for bucket in range(buckets):
        yield [hand[bounds[bucket] : bounds[bucket + 1]] for hand, bounds in hands]
