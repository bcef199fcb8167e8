"""`--fast SECONDS`: the tests that were quickest when they last ran, as many as fit into so many seconds.

Every run notes how long each test took, in pytest's cache; `tests/seconds.json` has what a fresh clone begins with:
`python -m tests.support.fast` copies the notes there. Nobody marks a test as slow: one that becomes slow drops
out of the next `make test-fast`, and of one that was never timed the seconds are guessed.

With two processes a long file that begins last leaves one of them idle: files that take long begin first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

COMMITTED = Path(__file__).parents[1] / "seconds.json"
KEY = "llmtrap/seconds"
UNKNOWN = 0.02
"""Seconds taken to be those of a test that was never timed and starts nothing: most are of this kind."""
UNKNOWN_PROCESS, UNKNOWN_SLOW = 2.0, 10.0
"""The same of a test whose file starts processes, and of one that needs trained weights or a browser."""
LONG_FILE = 15.0
"""Seconds from which on a file begins ahead of the others, the longest first."""


def function_of(nodeid: str) -> str:
    """A test function's name without its parameters: all its cases are taken, or none."""
    return nodeid.partition("[")[0]


def guess(item: pytest.Item) -> float:
    """Seconds of a test that was never timed, by what it uses."""
    if any(item.get_closest_marker(name) for name in ("slow", "real", "browser")):
        return UNKNOWN_SLOW
    if {"open_file", "browser"} & set(getattr(item, "fixturenames", ())):
        return UNKNOWN_SLOW
    uses = vars(getattr(item, "module", object)).values()
    starts = any(getattr(used, "__name__", "") == "subprocess" for used in uses)
    starts |= any(getattr(used, "__module__", "") == "tests.support.processes" for used in uses)
    return UNKNOWN_PROCESS if starts else UNKNOWN


def quickest(tests: Sequence[tuple[str, float]], seconds: Mapping[str, float], budget: float) -> set[str]:
    """The functions whose tests fit together into the budget, the quickest first.

    Args:
        tests: node id of every test, with the seconds to go by where it was never timed.
        seconds: of one test of each function, on average.
        budget: seconds for all that is taken.
    """
    totals: dict[str, float] = defaultdict(float)
    for name, guessed in tests:
        totals[function_of(name)] += seconds.get(function_of(name), guessed)
    taken: set[str] = set()
    for function, total in sorted(totals.items(), key=lambda item: (item[1], item[0])):
        budget -= total
        if budget < 0:
            break
        taken.add(function)
    return taken


def longest_first(files: Sequence[str], costs: Sequence[float]) -> list[int]:
    """The order in which to run tests: those of long files ahead, the longest first; all else stays as it is.

    Args:
        files: the file of each test.
        costs: seconds of each test.
    """
    totals: dict[str, float] = defaultdict(float)
    for file, cost in zip(files, costs, strict=True):
        totals[file] += cost
    ahead = {file: total for file, total in totals.items() if total >= LONG_FILE}
    return sorted(range(len(files)), key=lambda place: -ahead.get(files[place], 0.0))


def averages(timed: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Seconds of one test of each function: set-up, call and teardown, over its cases."""
    totals: dict[str, float] = defaultdict(float)
    cases: dict[str, set[str]] = defaultdict(set)
    for name, took in timed:
        totals[function_of(name)] += took
        cases[function_of(name)].add(name)
    return {function: round(total / len(cases[function]), 3) for function, total in totals.items()}


def known(config: pytest.Config) -> dict[str, float]:
    """What was noted on this machine, over what was committed."""
    committed = json.loads(COMMITTED.read_text(encoding="utf-8")) if COMMITTED.is_file() else {}
    cache = getattr(config, "cache", None)
    return {**committed, **(cache.get(KEY, {}) if cache is not None else {})}


class Timer:
    """Chooses the tests of `--fast`, and notes how long each takes."""

    def __init__(self, config: pytest.Config):
        self._config = config
        self._timed: list[tuple[str, float]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what does not fit, and begin with the long files."""
        seconds = known(self._config)
        budget = self._config.getoption("--fast")
        if budget is not None:
            taken = quickest([(item.nodeid, guess(item)) for item in items], seconds, budget)
            left_out = [item for item in items if function_of(item.nodeid) not in taken]
            items[:] = [item for item in items if function_of(item.nodeid) in taken]
            self._config.hook.pytest_deselected(items=left_out)
        costs = [seconds.get(function_of(item.nodeid), guess(item)) for item in items]
        order = longest_first([item.nodeid.partition("::")[0] for item in items], costs)
        items[:] = [items[place] for place in order]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase of a test that did not fail; it may have run in a process of pytest-xdist's."""
        if report.passed:
            self._timed.append((report.nodeid, report.duration))

    def pytest_sessionfinish(self) -> None:
        """Keep the notes. Processes of pytest-xdist have reported to the one that started them."""
        cache = getattr(self._config, "cache", None)
        repeated = self._config.getoption("--repeat", 1) > 1 or self._config.getoption("--stress", default=False)
        if cache is not None and not hasattr(self._config, "workerinput") and not repeated:
            cache.set(KEY, {**cache.get(KEY, {}), **averages(self._timed)})


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of `make test-fast`."""
    parser.addoption(
        "--fast", type=float, metavar="SECONDS", help="the quickest tests, for so many seconds of one core"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin to listen."""
    config.pluginmanager.register(Timer(config), "llmtrap-timer")


if __name__ == "__main__":
    noted = Path(__file__).parents[2] / ".pytest_cache" / "v" / KEY
    worth = {name: took for name, took in json.loads(noted.read_text(encoding="utf-8")).items() if took > UNKNOWN}
    COMMITTED.write_text(json.dumps(worth, indent=0, sort_keys=True) + "\n", encoding="utf-8")
