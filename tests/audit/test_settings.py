"""How many workers there are by default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmtrap.audit.settings import available_cores

MINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", MINE),
                                             ("9900000 100000", MINE), ("broken", MINE)])  # fmt: skip
def test_the_quota_of_a_container_bounds_the_cores(text: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert available_cores(tmp_path) == min(cores, MINE)


@pytest.mark.parametrize(("quota", "cores"), [("100000", 1), ("-1", MINE)])
def test_so_does_the_quota_of_the_first_version(quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cores(tmp_path) == cores


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "nothing") == MINE
