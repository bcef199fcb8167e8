"""Real weights in memory give the report of their files, in this process and through workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.support.audits import without_times

import llmtrap


@pytest.mark.real
@pytest.mark.parametrize("workers", [1, 2])
def test_smollm2_in_memory_has_the_numbers_of_its_files(smollm2_bf16: Path, workers: int) -> None:
    tensors = {name: it for file in sorted(smollm2_bf16.glob("*.safetensors")) for name, it in load_file(file).items()}
    config = json.loads((smollm2_bf16 / "config.json").read_text())
    include = ("layers.10.*", "embedding")
    mine = without_times(llmtrap.audit(tensors, config=config, include=include, workers=workers))
    files = without_times(llmtrap.audit(smollm2_bf16, include=include, workers=1))
    for document in (mine, files):
        del document["target"]
        document["matrices"].sort(key=lambda matrix: matrix["id"])
    assert len(mine["matrices"]) == 8
    assert mine == files
