"""Small checkpoints, and reports without the times that no two runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_checkpoint import write_small

from llmtrap.report.document import Report


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two layers, eight matrices, two shards."""
    return write_small(tmp_path / "small")


@pytest.fixture(scope="session")
def timeless() -> Callable[[Report], dict[str, Any]]:
    """A report as JSON types without its times and its memory."""

    def strip(report: Report) -> dict[str, Any]:
        document = report.to_json_dict()
        for matrix in document["matrices"]:
            del matrix["seconds"]
        del document["summary"]["seconds"], document["summary"]["peak_rss_bytes"]
        del document["summary"]["remembered"]
        del document["run"]
        return document

    return strip
