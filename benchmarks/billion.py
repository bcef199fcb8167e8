"""A shuffle of a matrix of over 10⁹ entries, at full size: Llama-3-70B's embedding, 128256 × 8192.

    python -m benchmarks.billion [--rows 128256] [--columns 8192] [--blocks N]

The entries are known by their histogram, as those of any BF16 matrix too large to hold are. The blocks of one shuffle
are drawn and counted again: of all blocks the counts must come out exactly. Beside it, in turn, as many entries are
drawn from a matrix just small enough for NumPy's own draws; the ratio says what the size costs.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.entries import BLOCK_ENTRIES
from llmtrap.spectra.shuffle import MOST_DRAWN, drawn_from_histogram, generator_for
from llmtrap.systems.process import peak_rss_bytes


def main(arguments: list[str] | None = None) -> int:
    """Draw, check, and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.billion", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=128_256)
    parser.add_argument("--columns", type=int, default=8192)
    parser.add_argument("--blocks", type=int, help="draw so many blocks alone, and check no counts")
    options = parser.parse_args(arguments)
    entries = options.rows * options.columns
    seconds, blocks = draw(entries, options.columns, options.blocks)
    compared, _ = draw(MOST_DRAWN - 1, options.columns, blocks)
    result = {
        "entries": entries,
        "blocks": blocks,
        "whole": options.blocks is None,
        "entries_per_second": round(min(blocks * BLOCK_ENTRIES, entries) / seconds),
        "against_numpys_limit": round(seconds / compared, 3),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    print(json.dumps(result))
    return 0


def draw(entries: int, columns: int, most: int | None) -> tuple[float, int]:
    """Seconds of drawing one shuffle's blocks, and how many there were; the counts are checked where all were drawn.

    Raises:
        AssertionError: a value came more or less often than it is there.
    """
    values, counts = histogram(entries)
    left = counts.copy()
    block = max(1, BLOCK_ENTRIES // columns) * columns
    seconds, drawn = 0.0, 0
    pieces = drawn_from_histogram(values, counts, block, generator_for(0, "embedding", 0))
    while most is None or drawn < most:
        begun = time.perf_counter()
        piece = next(islice(pieces, 1), None)
        seconds += time.perf_counter() - begun
        if piece is None:
            break
        drawn += 1
        left -= np.bincount(np.searchsorted(values, piece.astype(np.float64)), minlength=values.size)
    if most is None and left.any():
        raise AssertionError("the counts of the shuffle are not those of the matrix")
    return seconds, drawn


def histogram(entries: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Values and counts of so many Gaussian entries of deviation 0.02, rounded to BF16."""
    sample = (0.02 * np.random.default_rng(0).standard_normal(1 << 22)).astype(np.float32)
    values, counts = np.unique(sample.astype(ml_dtypes.bfloat16).astype(np.float64), return_counts=True)
    grown = counts.astype(np.int64) * (entries // sample.size)
    grown[values.size // 2] += entries - int(grown.sum())
    return values, grown


if __name__ == "__main__":
    raise SystemExit(main())
