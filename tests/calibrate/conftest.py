"""A network small enough to train in a second, and a followed run of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from llmtrap.calibrate.data import TaskData, task_data  # noqa: E402
from llmtrap.calibrate.presets import preset  # noqa: E402
from llmtrap.calibrate.recipe import Recipe  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """These matrices are too small to share: several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """The digits' recipe, quickened: units die within two thousand steps, so frozen ones are left out."""
    base = preset("digits", "quick").arms[0]
    return replace(base, widths=(64, 60, 60, 10), warmup=200, lr=1e-2, steps=2_300)


@pytest.fixture(scope="session")
def digits(tiny: Recipe) -> TaskData:
    return task_data(tiny, seed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
