"""Damage planted in SmolLM2 is found and repaired, with the base and without; what the model needs is left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.support.processes import run
from tests.support.smollm2 import read_checkpoint

torch = pytest.importorskip("torch", reason="the extra 'ablation' is not installed")

from llmtrap.ablation.effects import measure_effects  # noqa: E402
from llmtrap.ablation.measures import Estimate  # noqa: E402
from llmtrap.ablation.probes import first_token, text_probe  # noqa: E402
from llmtrap.ablation.run import TEXT_LENGTH, TEXT_SEQUENCES  # noqa: E402
from llmtrap.ablation.streaming import StreamedModel  # noqa: E402
from llmtrap.checkpoint import open_checkpoint  # noqa: E402
from llmtrap.spectra.certificate import entry_limit  # noqa: E402

PLANTED = {
    ("layers.5.mlp.down", 100, 700): "21 limits",
    ("layers.14.attention.q", 40, 41): "bit 14",
    ("layers.8.mlp.up", 3, 5): "NaN",
}
pytestmark = pytest.mark.thorough  # each runs the whole model over and over

LONG = 3600.0  # each runs the model several times
NEEDED = "layers.11.mlp.down:507,1229"


@pytest.fixture(scope="module")
def damaged(smollm2_with_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with an entry of 21 limits, one whose highest exponent bit is flipped, and a NaN."""
    folder = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(smollm2_with_tokenizer, folder)
    checkpoint = open_checkpoint(str(folder))
    matrices = {matrix.id: matrix for matrix in checkpoint.matrices}
    for (name, row, column), what in PLANTED.items():
        matrix = matrices[name]
        shard = folder / matrix.stored.parts[0].span.file
        tensors = load_file(shard)
        weights = tensors[matrix.tensor]
        if what == "21 limits":
            weights[row, column] = 21 * entry_limit(*weights.shape) * weights.astype(np.float32).std()
        elif what == "NaN":
            weights[row, column] = np.nan
        else:
            weights.view(np.uint16)[row, column] ^= 1 << 14
            assert abs(float(weights[row, column])) > 1e30
        assert weights.dtype == ml_dtypes.bfloat16
        save_file(tensors, shard, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def healthy_loss(smollm2_with_tokenizer: Path) -> Estimate:
    """Negative log-likelihood of the bundled passage before the damage, nats a token."""
    checkpoint = open_checkpoint(str(smollm2_with_tokenizer))
    text = text_probe(checkpoint, None, TEXT_SEQUENCES, TEXT_LENGTH, first_token(checkpoint))
    assert text is not None
    return Estimate.of(torch.tensor(measure_effects(StreamedModel(checkpoint), text.tokens, [], text=True)[1]))


@pytest.mark.parametrize("with_base", [True, False])
def test_planted_damage_is_found_and_repaired(
    with_base: bool, damaged: Path, healthy_loss: Estimate, smollm2_with_tokenizer: Path, tmp_path: Path
) -> None:
    base = ["--base", smollm2_with_tokenizer] if with_base else []
    entries = [word for name, row, column in PLANTED for word in ("--entry", f"{name}:{row},{column}")]
    # Without a base the audit finds them; the traps that it finds too are no damage, and stay.
    ended = run("repair", damaged, "--out", tmp_path / "new", *base, *(entries if with_base else []), patience=LONG)
    assert ended.returncode == (0 if with_base else 3), ended.stdout + ended.stderr
    manifest = json.loads((tmp_path / "new" / "llmtrap-repair.json").read_text())
    found = {(r["location"]["matrix"], r["location"]["row"], r["location"]["column"]) for r in manifest["repairs"]}
    assert found == set(PLANTED)
    healthy, new = read_checkpoint(smollm2_with_tokenizer), read_checkpoint(tmp_path / "new")
    for name, tensor in healthy.items():
        differ = np.argwhere(tensor.view(np.uint16) != new[name].view(np.uint16))
        assert with_base <= (len(differ) == 0), name
        assert len(differ) <= 1, name
    assert manifest["text"]["before"] is None  # of NaN
    assert healthy_loss.se is not None
    assert abs(manifest["text"]["after"] - healthy_loss.value) < (1e-9 if with_base else healthy_loss.se / 10)


def test_an_entry_that_the_model_needs_is_refused(smollm2_with_tokenizer: Path, tmp_path: Path) -> None:
    ended = run("repair", smollm2_with_tokenizer, "--out", tmp_path / "new", "--entry", NEEDED, patience=LONG)
    assert ended.returncode == 2, ended.stderr
    assert "predicts the text worse" in ended.stdout
    assert not (tmp_path / "new").exists()
