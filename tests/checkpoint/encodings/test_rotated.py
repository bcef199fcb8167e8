"""Rotations done by compressed-tensors itself, undone here; what is not understood stays called rotated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from llmtrap.checkpoint import Checkpoint

# compressed-tensors warns of other libraries and of this machine's processor.
pytestmark = pytest.mark.filterwarnings("ignore")

Save = Callable[..., Checkpoint]
R1 = {
    "type": "hadamard",
    "apply": [
        {"targets": ["re:.*embed_tokens$", "re:.*o_proj$"], "location": "weight_output"},
        {"targets": ["re:.*[qv]_proj$"], "location": "weight_input", "inverse": True},
    ],
}
R2 = {
    "type": "hadamard",
    "head_dim": 16,
    "apply": [
        {"targets": ["re:.*v_proj$"], "location": "weight_output"},
        {"targets": ["re:.*o_proj$"], "location": "weight_input", "inverse": True},
    ],
}


class Layer(torch.nn.Module):
    """Names and shapes as in Llama: an embedding and three Linears, none of them square."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(40, 64)
        self.q_proj = torch.nn.Linear(64, 96, bias=False)
        self.v_proj = torch.nn.Linear(64, 32, bias=False)
        self.o_proj = torch.nn.Linear(32, 64, bias=False)


def rotated(groups: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    """The weights before and after compressed-tensors rotated them."""
    transform = pytest.importorskip("compressed_tensors.transform", exc_type=ImportError)
    torch.manual_seed(3)
    model = Layer()
    before = {name: value.detach().clone().numpy() for name, value in model.state_dict().items()}
    transform.apply_transform_config(model, transform.TransformConfig(config_groups=groups))
    return before, {name: value.detach().clone() for name, value in model.state_dict().items()}


def configured(groups: dict[str, Any]) -> dict[str, Any]:
    settings = {"quant_method": "compressed-tensors", "transform_config": {"config_groups": groups}}
    return {"quantization_config": settings}


def test_what_compressed_tensors_rotated_is_read_as_it_was(save: Save) -> None:
    groups = {"R1": R1, "R2": R2}
    before, after = rotated(groups)
    checkpoint = save(after, config=configured(groups))
    assert len(checkpoint.matrices) == 4
    for matrix in checkpoint.matrices:
        was = before[matrix.tensor]
        assert not np.allclose(after[matrix.tensor].numpy(), was, atol=0.01)
        assert matrix.encoding == "F32, rotation undone"
        values = matrix.read(checkpoint.source)
        np.testing.assert_allclose(values, was, atol=1e-6)
        in_pieces = np.vstack([block.copy() for block in matrix.blocks(checkpoint.source, max_entries=300)])
        np.testing.assert_allclose(in_pieces, values, atol=1e-7)
    assert [caution.kind for caution in checkpoint.cautions] == ["column_scaled"]
    assert "is undone here" in checkpoint.cautions[0].text


@pytest.mark.parametrize(
    "change",
    [
        {"type": "random-hadamard"},
        {"randomize": True},
        {"head_dim": 24},
        {"apply": [{"targets": ["re:(a+)+$"], "location": "weight_input"}]},
        {"apply": [{"targets": ["re:.*elsewhere$"], "location": "weight_input"}]},
        {"apply": [{"targets": ["re:.*q_proj$"], "location": "weight_middle"}]},
        {"apply": "everywhere"},
        {"apply": [{"targets": ["re:.*q_proj$"], "location": "weight_output"}] * 4},
        {"apply": [{"targets": ["re:.*q_proj$"], "location": "input"}] * 17},
        {"apply": [{"targets": ["re:.*" + "q" * 300], "location": "weight_input"}]},
    ],
)
def test_one_transform_that_is_not_understood_leaves_all_as_stored(save: Save, change: dict[str, Any]) -> None:
    after = {f"{name}.weight": torch.ones(64, 64) for name in ("embed_tokens", "q_proj", "v_proj", "o_proj")}
    checkpoint = save(after, config=configured({"R1": R1, "other": {**R2, **change}}))
    assert {matrix.encoding for matrix in checkpoint.matrices} == {"F32"}
    assert [caution.kind for caution in checkpoint.cautions] == ["rotated"]
