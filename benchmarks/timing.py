"""Ratios measured in one run: contenders take turns, so that what else the machine does hits both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """One comparison: seconds of every round for both sides, and the ratio of their medians (ours / theirs)."""

    name: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    theirs_name: str
    note: str = ""

    @property
    def ratio(self) -> float:
        """Median of ours over median of theirs."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def spread(self) -> tuple[float, float]:
        """Least and greatest ratio of a single round."""
        rounds = [one / other for one, other in zip(self.ours, self.theirs, strict=True)]
        return min(rounds), max(rounds)


def alternate(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Time each contender once a round, in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: tuple(values) for name, values in seconds.items()}


def compare(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    theirs_name: str,
    rounds: int,
    note: str = "",
) -> Ratio:
    """Alternate two contenders."""
    seconds = alternate({"ours": ours, "theirs": theirs}, rounds)
    return Ratio(name, seconds["ours"], seconds["theirs"], theirs_name, note)
