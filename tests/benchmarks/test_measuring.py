"""The benchmarks' instruments: turns, ratios, and the memory of a whole process tree."""

from __future__ import annotations

import json
import sys

import pytest
from benchmarks.__main__ import results_document
from benchmarks.memory import run_measured
from benchmarks.timing import Ratio, alternate

HOLDER = "import time; held = bytearray(150_000_000); time.sleep(0.5)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDER!r}], check=True)"


def test_contenders_take_turns_after_a_round_that_does_not_count() -> None:
    turns: list[str] = []

    seconds = alternate({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=3)

    assert "".join(turns) == "abababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    ratio = Ratio("x", ours=(2.0, 9.0, 4.0), theirs=(1.0, 2.0, 3.0), theirs_name="y")

    assert (ratio.ratio, ratio.spread) == (2.0, (4 / 3, 4.5))


def test_the_memory_of_a_child_counts() -> None:
    peak = run_measured([sys.executable, "-c", PARENT])

    assert peak.processes == 2
    assert 150_000_000 < peak.anonymous < 250_000_000
    assert peak.high_water > peak.anonymous


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        run_measured([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_results_name_the_machine_and_keep_every_time() -> None:
    ratio = Ratio("x", ours=(2.0, 4.0), theirs=(1.0, 2.0), theirs_name="y")

    document = json.loads(json.dumps(results_document([ratio], None, rounds=2)))

    assert document["ratios"] == [
        {
            "name": "x",
            "ours": [2.0, 4.0],
            "theirs": [1.0, 2.0],
            "theirs_name": "y",
            "note": "",
            "ratio": 2.0,
            "spread": [2.0, 2.0],
        }
    ]
    assert {"processor", "cores", "packages", "blas"} <= document["machine"].keys()
    assert all(library["num_threads"] >= 1 for library in document["machine"]["blas"])
