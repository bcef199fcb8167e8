"""Weights in memory: read where they lie, named as files are, refused by name where they are not what is computed."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.memory.opening import open_memory
from llmtrap.errors import TargetError, UnsupportedError, UsageError

RNG = np.random.default_rng(3)
UP = "model.layers.0.mlp.up_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


def weights(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape, dtype=np.float32)


def read(target: Any, index: int = 0) -> NDArray[np.floating]:
    checkpoint = open_memory(target)
    return checkpoint.matrices[index].read(checkpoint.source)


W = weights(48, 32)
VIEWS: dict[str, tuple[Any, NDArray[np.floating]]] = {
    "numpy": (W, W),
    "numpy_float64": (W.astype(np.float64), W.astype(np.float64)),
    "numpy_bfloat16": (W.astype(ml_dtypes.bfloat16), W.astype(ml_dtypes.bfloat16).astype(np.float32)),
    "numpy_transposed": (W.T, W.T),
    "numpy_backwards": (W[::-1, ::2], W[::-1, ::2]),
    "torch": (torch.from_numpy(W), W),
    "torch_bfloat16": (torch.from_numpy(W).bfloat16(), W.astype(ml_dtypes.bfloat16).astype(np.float32)),
    "torch_transposed": (torch.from_numpy(W).bfloat16().T, W.astype(ml_dtypes.bfloat16).astype(np.float32).T),
    "torch_float8": (
        torch.from_numpy(W).to(torch.float8_e4m3fn), W.astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
    ),
    "torch_slice": (torch.from_numpy(W)[5:, 3:20], W[5:, 3:20]),
    "torch_parameter": (torch.nn.Parameter(torch.from_numpy(W)), W),
}  # fmt: skip


@pytest.mark.parametrize("kind", VIEWS)
def test_every_kind_of_array_is_read_as_its_own_library_reads_it(kind: str) -> None:
    array, expected = VIEWS[kind]
    np.testing.assert_array_equal(read({UP: array}), expected)


def test_any_library_with_dlpack_is_read() -> None:
    class Other:
        def __dlpack__(self, **options: Any) -> Any:
            return W.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return W.__dlpack_device__()

    np.testing.assert_array_equal(read({UP: Other()}), W)


def test_slices_of_a_stack_of_experts_that_lies_transposed_are_read() -> None:
    stack = weights(4, 32, 64)
    checkpoint = open_memory({"model.layers.0.mlp.experts.gate_up_proj": torch.from_numpy(stack).transpose(1, 2)})
    assert len(checkpoint.matrices) == 4
    for k, matrix in enumerate(checkpoint.matrices):
        np.testing.assert_array_equal(matrix.read(checkpoint.source), stack[k].T)


def test_what_lies_in_order_is_lent_and_not_copied() -> None:
    tensor = torch.from_numpy(W.copy())
    checkpoint = open_memory({UP: tensor})
    with checkpoint.source.open(checkpoint.catalogue.tensors[UP].span) as data:
        assert data.ctypes.data == tensor.data_ptr()
        assert not data.flags.writeable


def test_a_range_over_several_tensors_has_the_bytes_of_each() -> None:
    first, second = np.arange(3, dtype=np.uint8), np.arange(10, 14, dtype=np.uint8)
    source = open_memory({UP: W, "a": first, "b": second}).source
    span = type(next(iter(source.spans.values())))("memory", W.nbytes + 1, W.nbytes + 6)  # type: ignore[attr-defined]
    assert source.read(span).tolist() == [1, 2, 10, 11, 12]


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(64, 32)
        self.up_proj = torch.nn.Linear(32, 48, dtype=torch.bfloat16)
        self.lm_head = torch.nn.Linear(32, 64, bias=False)
        self.lm_head.weight = self.embed_tokens.weight


def test_a_module_is_named_as_its_checkpoint_would_be_and_tied_weights_come_once() -> None:
    module = Tied()
    checkpoint = open_checkpoint(module)
    assert checkpoint.catalogue.identity.name == "Tied"
    assert [matrix.tensor for matrix in checkpoint.matrices] == ["embed_tokens.weight", "up_proj.weight"]
    assert checkpoint.matrices[0].aliases == ("unembedding",)
    assert open_memory(module.state_dict()).matrices == checkpoint.matrices


def test_wrappers_around_a_module_do_not_show_in_its_names() -> None:
    wrapped = torch.nn.DataParallel(Tied())
    assert open_memory(wrapped).matrices[0].tensor == "embed_tokens.weight"


class Linear4bit(torch.nn.Module):
    """As bitsandbytes keeps a layer: its codes in a parameter of integers."""

    def __init__(self) -> None:
        super().__init__()
        codes = torch.zeros(768, 1, dtype=torch.uint8)
        self.weight = torch.nn.Parameter(codes, requires_grad=False)


class Subclass(torch.Tensor):
    pass


def test_a_layer_that_pytorch_quantised_is_refused_by_its_name() -> None:
    layer = torch.nn.Linear(4, 4)
    layer._packed_params = torch.nn.Module()  # where torch.ao keeps the weights
    with pytest.raises(UnsupportedError, match=r"^0: a Linear .*quantised in memory.*BF16"):
        open_memory(torch.nn.Sequential(layer))


def test_a_quantised_layer_is_refused_by_its_name() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(32, 48), Linear4bit())
    with pytest.raises(UnsupportedError, match=r"^1: a Linear4bit .*quantised in memory.*BF16"):
        open_memory(module)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(48, 32).as_subclass(Subclass), "a Subclass .* quantised or wrapped"),
        (torch.empty(48, 32, device="meta"), "not in memory.*offloading"),
        (torch.eye(48).to_sparse(), "sparse"),
        (np.zeros((48, 32), ">f4"), "most significant byte first"),
        (np.zeros((48, 32), "S4"), "type bytes32 are not read"),
        ([[1.0]], "a list is no array"),
    ],
)
def test_what_is_no_plain_array_of_numbers_is_refused_with_its_name(tensor: Any, said: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^{UP}: .*{said}".replace("[", r"\[")):
        open_memory({UP: tensor})


def test_integers_that_must_be_weights_are_refused_and_not_left_out() -> None:
    with pytest.raises(UnsupportedError, match=DOWN):
        open_memory({UP: W, DOWN: np.zeros((32, 48), np.int8)})


def test_options_of_the_other_kind_of_target_are_refused(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="no revision"):
        open_checkpoint({UP: W}, revision="main")
    with pytest.raises(UsageError, match="for weights in memory"):
        open_checkpoint(tmp_path, name="model")


@pytest.mark.parametrize("target", [{}, torch.nn.Identity(), 5])
def test_nothing_to_audit_is_an_error(target: Any) -> None:
    with pytest.raises(TargetError):
        open_checkpoint(target)
