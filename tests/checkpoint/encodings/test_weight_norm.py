"""Weight norm against PyTorch's own: linear layers and convolutions, along any dimension, old names and new."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.errors import CheckpointError

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(9, 14),
    "convolution of sounds": lambda: nn.Conv1d(6, 8, 5),
    "convolution of images": lambda: nn.Conv2d(3, 7, 3),
    "long kernel": lambda: nn.Conv1d(20, 24, 33, groups=1),
}


def written(folder: Path, layer: nn.Module) -> Checkpoint:
    save_file({f"conv.{name}": tensor for name, tensor in layer.state_dict().items()}, folder / "model.safetensors")
    return open_checkpoint(str(folder))


@pytest.mark.parametrize("dim", [0, 1, -1, None])
@pytest.mark.parametrize("parametrised", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_product_is_what_pytorch_computes(tmp_path: Path, kind: str, parametrised: bool, dim: int | None) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    weight = layer.get_parameter("weight")
    axis = dim if dim is None else dim % weight.dim()
    norm = nn.utils.parametrizations.weight_norm if parametrised else nn.utils.weight_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = norm(layer, dim=axis)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith(("_g", "original0")):
                parameter.mul_(torch.rand(parameter.shape) + 0.5)
    expected = layer.weight.detach().numpy() if parametrised else _forward(layer)
    checkpoint = written(tmp_path, layer)
    read = [matrix.read(checkpoint.source) for matrix in checkpoint.matrices]
    np.testing.assert_allclose(np.concatenate(read).reshape(-1), expected.reshape(-1), rtol=2e-6, atol=1e-7)
    for matrix, whole in zip(checkpoint.matrices, read, strict=True):
        pieces = np.concatenate([block.copy() for block in matrix.blocks(checkpoint.source, 50)])
        np.testing.assert_array_equal(pieces, whole)
        assert matrix.encoding == "F32 with weight norm"
    assert {item.tensor for item in checkpoint.skipped} == {"conv.bias"}


def _forward(layer: nn.Module) -> np.ndarray:
    hook = next(iter(layer._forward_pre_hooks.values()))
    return hook.compute_weight(layer).detach().numpy()  # type: ignore[no-any-return]


def test_lengths_that_do_not_fit_and_half_a_pair_are_refused(tmp_path: Path) -> None:
    save_file({"a.weight_g": torch.ones(3, 1), "a.weight_v": torch.ones(4, 5)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lengths of shape \[3, 1\] for a weight of \[4, 5\]"):
        open_checkpoint(str(tmp_path))
    save_file({"a.weight_v": torch.ones(4, 5)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="without its length"):
        open_checkpoint(str(tmp_path))
