"""What the checkpoint tests share: tensors written by the real safetensors library, opened as a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from llmtrap.checkpoint import Checkpoint, open_checkpoint

Save = Callable[..., Checkpoint]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write torch tensors as one file, or as shards with an index, with a configuration, and open the folder."""

    def write(*shards: dict[str, Any], config: dict[str, Any] | None = None, split_fused: bool = False) -> Checkpoint:
        if len(shards) == 1:
            save_file(shards[0], tmp_path / "model.safetensors")
        else:
            names = [f"model-{k:05d}-of-{len(shards) - 1:05d}.safetensors" for k in range(len(shards))]
            for name, tensors in zip(names, shards, strict=True):
                save_file(tensors, tmp_path / name)
            places = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
            index = {"metadata": {"total_size": 0}, "weight_map": places}
            (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return open_checkpoint(str(tmp_path), split_fused=split_fused)

    return write
