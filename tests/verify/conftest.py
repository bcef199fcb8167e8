"""The matrices of a real checkpoint, from its headers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtrap.checkpoint import WeightMatrix, open_checkpoint


@pytest.fixture
def minilm_matrices(minilm: Path) -> tuple[WeightMatrix, ...]:
    return open_checkpoint(str(minilm)).matrices
