"""`make test-fast` takes the quickest tests by what was noted of them, and notes what they take now."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.fast import KEY, UNKNOWN, UNKNOWN_PROCESS, UNKNOWN_SLOW, averages, guess, longest_first, quickest

ROOT = Path(__file__).parents[1]
SECONDS = {"a.py::quick": 1.0, "a.py::cases": 2.0, "b.py::slow": 50.0}
NAMES = ("b.py::slow", "a.py::quick", "a.py::cases[1]", "a.py::cases[2]", "b.py::new")


@pytest.mark.parametrize(
    ("budget", "taken"),
    [
        (0, set()),
        (UNKNOWN, {"b.py::new"}),
        (3, {"b.py::new", "a.py::quick"}),
        (6, {"b.py::new", "a.py::quick", "a.py::cases"}),
        (60, {"b.py::new", "a.py::quick", "a.py::cases", "b.py::slow"}),
    ],
)
def test_the_quickest_are_taken_all_cases_of_a_function_or_none(budget: float, taken: set[str]) -> None:
    assert quickest([(name, UNKNOWN) for name in NAMES], SECONDS, budget) == taken


def test_a_function_s_seconds_are_those_of_its_cases_in_all_phases() -> None:
    timed = [("a::f[1]", 1.0), ("a::f[1]", 2.0), ("a::f[2]", 1.0), ("a::g", 0.5)]
    assert averages(timed) == {"a::f": 2.0, "a::g": 0.5}


def test_long_files_begin_first_and_the_rest_stays_in_its_order() -> None:
    files = ["c.py", "a.py", "b.py", "a.py", "d.py"]
    assert longest_first(files, [1.0, 9.0, 40.0, 9.0, 0.5]) == [2, 1, 3, 0, 4]
    assert longest_first(files, [1.0] * 5) == [0, 1, 2, 3, 4]


def test_what_was_never_timed_is_guessed_by_what_it_uses(request: pytest.FixtureRequest) -> None:
    assert guess(request.node) == UNKNOWN_PROCESS  # this file starts processes
    request.node.add_marker(pytest.mark.slow)
    assert guess(request.node) == UNKNOWN_SLOW
    assert quickest([("a::b", 9.0), ("a::c", 1.0)], {}, 5) == {"a::c"}


def run(folder: Path, *options: str) -> str:
    """Run pytest with this plugin alone, on the tests of a folder."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.fast", "-p", "no:randomly", "-q", *options]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("processes", [pytest.param((), marks=pytest.mark.thorough), ("-n", "2")])
def test_a_test_that_was_slow_is_left_out_of_the_next_run(tmp_path: Path, processes: tuple[str, ...]) -> None:
    (tmp_path / "test_it.py").write_text("import time\ndef test_slow(): time.sleep(1.5)\ndef test_quick(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert "2 passed" in run(tmp_path, *processes)
    noted = json.loads((tmp_path / ".pytest_cache" / "v" / KEY).read_text())
    assert noted["test_it.py::test_slow"] > 1.4
    assert "1 passed, 1 deselected" in run(tmp_path, "--fast", "1", *(processes and ("-n", "0")))
