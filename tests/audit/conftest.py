"""Small checkpoints, and reports without the times that no two runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.audits import without_times
from tests.support.small_checkpoint import write_small

from llmtrap.report.document import Report


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two layers, eight matrices, two shards."""
    return write_small(tmp_path / "small")


@pytest.fixture(scope="session")
def timeless() -> Callable[[Report], dict[str, Any]]:
    """A report as JSON types without its times and its memory."""
    return without_times
