"""Independent cells of simulation, spread over processes and seeded by their names."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

RESULTS = Path(__file__).parent / "results"
Cell = Mapping[str, Any]


def generator(*name: object) -> np.random.Generator:
    """A generator that depends on the cell's name alone, whoever computes it and when."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))


def run(
    name: str, task: Callable[..., dict[str, Any]], cells: Iterable[Cell], workers: int, folder: Path = RESULTS
) -> list[dict[str, Any]]:
    """Compute the cells and write them to folder/name.json as they come; the order is that of the cells."""
    done: list[dict[str, Any]] = []
    start = time.perf_counter()
    for result in in_processes(task, list(cells), workers):
        done.append(result)
        print(f"{name}: {len(done)} cells, {time.perf_counter() - start:.0f} s", flush=True)
        (folder / f"{name}.json").write_text(json.dumps(done, indent=1) + "\n")
    return done


def in_processes(task: Callable[..., dict[str, Any]], cells: Sequence[Cell], workers: int) -> Iterator[dict[str, Any]]:
    """Compute the cells, in order, in so many processes."""
    if workers == 1:
        yield from (task(**cell) for cell in cells)
        return
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(task, **cell) for cell in cells]
        yield from (future.result() for future in futures)


def upper_limit(events: int, trials: int, confidence: float = 0.95) -> float:
    """Clopper and Pearson's one-sided upper limit of a rate."""
    if trials == 0 or events == trials:
        return 1.0
    return float(stats.beta.ppf(confidence, events + 1, trials - events))


def interval(events: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's central 95 % interval of a rate."""
    low = 0.0 if events == 0 else float(stats.beta.ppf(0.025, events, trials - events + 1))
    return low, 1.0 if events == trials else float(stats.beta.ppf(0.975, events + 1, trials - events))
