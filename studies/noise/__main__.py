"""`python -m studies.noise [--quick]`: simulate the table of noise that comes with the package.

It writes `src/llmtrap/spectra/noise.json`; with `--quick` a twentieth of the draws, printed and not written. How far
the interpolation is off, and how often noise is called anything else, are parts of `python -m studies.validity`.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from studies.noise.simulate import measured
from studies.validity.work import generator, in_processes

SIDES = (50, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
ASPECTS = (1.0, 1.06, 1.25, 2.0, 4.0, 8.0, 16.0, 64.0, 512.0)


def draws_of(side: int) -> int:
    """Fewer of large matrices, which vary less and cost more."""
    return 400 if side <= 256 else 120 if side <= 768 else 50 if side <= 1024 else 20


def cell(side: int, aspect: float, draws: int) -> dict[str, Any]:
    """One shape of the grid."""
    return measured(round(side * aspect), side, draws, generator("noise", side, aspect))


def table(workers: int, share: float) -> dict[str, Any]:
    """All shapes: what the package reads."""
    grid = [
        {"side": side, "aspect": aspect, "draws": max(5, round(share * draws_of(side)))}
        for side in SIDES
        for aspect in ASPECTS
    ]
    found = list(in_processes(cell, grid, workers))
    rows = [found[k : k + len(ASPECTS)] for k in range(0, len(found), len(ASPECTS))]
    # M times the distance does not depend on the aspect ratio: all of a side are one sample.
    distances = [float(np.quantile([d for cell in row for d in cell["distances"]], 0.999)) for row in rows]
    return {
        "made_by": "python -m studies.noise",
        "sides": list(SIDES),
        "aspects": list(ASPECTS),
        "quantiles": [0.05, 0.5, 0.95],
        **{name: [[cell[name] for cell in row] for row in rows] for name in ("alpha", "stable_rank", "entropy")},
        # With few draws of a large side the quantile is low; it grows with the side.
        "distance": np.round(np.maximum.accumulate(distances), 3).tolist(),
    }


def main() -> None:
    """Simulate, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m studies.noise", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the draws, and nothing written")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    found = table(options.workers, 0.05 if options.quick else 1.0)
    text = json.dumps(found, separators=(",", ":")).replace(',"', ',\n"') + "\n"
    if options.quick:
        print(text)
        return
    Path(str(files("llmtrap.spectra").joinpath("noise.json"))).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
