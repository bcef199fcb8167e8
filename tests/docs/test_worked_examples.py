"""The worked examples of the documentation do what their pages say: an encoding, a rule and a family."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.support.small_checkpoint import write_small

import llmtrap
from llmtrap.calibrate.demo import write_grokking_demo
from llmtrap.checkpoint import encodings
from llmtrap.checkpoint.families import read_family
from llmtrap.errors import CheckpointError
from llmtrap.gate.policy_file import load_policy
from llmtrap.gate.rules import RULES

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, language: str) -> str:
    """The only block of this language on a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(found)


def written(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's Python, imported from a file as it would be in the package."""
    file = folder / f"{page.removesuffix('.md').replace('-', '_')}.py"
    file.write_text(block(page, "python"), encoding="utf-8")
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def log_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's encoding, in the table of encodings."""
    module = written("write-an-encoding.md", tmp_path, monkeypatch)
    monkeypatch.setattr(encodings, "ENCODINGS", (module.LogCodes(), *encodings.ENCODINGS))
    return module


def test_an_encoding_decodes_by_the_formula_of_its_page(log_codes: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (60, 80), dtype=np.uint8)
    scale = rng.uniform(0.1, 2, (60, 1)).astype(np.float32)
    (tmp_path / "model").mkdir()
    name = "model.layers.0.mlp.down_proj"
    save_file({f"{name}.log_codes": codes, f"{name}.log_scale": scale}, tmp_path / "model" / "model.safetensors")

    checkpoint = llmtrap.open_checkpoint(str(tmp_path / "model"))
    (matrix,) = checkpoint.matrices
    decoded = matrix.read(checkpoint.source)

    powers = 2.0 ** ((codes.astype(np.int64) % 128 - 127) / 8)
    expected = (np.where(codes >= 128, -powers, powers).astype(np.float32)) * scale
    assert (matrix.id, matrix.encoding, checkpoint.skipped) == ("layers.0.mlp.down", "log codes", ())
    assert np.array_equal(decoded, expected)
    report = llmtrap.audit(str(tmp_path / "model"))
    assert report.matrices[0].spectrum is not None
    assert report.matrices[0].spectrum.frobenius_norm == pytest.approx(float(np.linalg.norm(expected)), rel=1e-5)


def test_an_encoding_names_the_tensor_that_does_not_fit(log_codes: ModuleType, tmp_path: Path) -> None:
    tensors = {"a.log_codes": np.zeros((60, 80), np.uint8), "a.log_scale": np.ones((59, 1), np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.log_codes") as caught:
        llmtrap.open_checkpoint(str(tmp_path / "model.safetensors"))
    assert (caught.value.file, caught.value.tensor) == ("model.safetensors", "a.log_scale")


def test_a_rule_is_configured_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = written("write-a-rule.md", tmp_path, monkeypatch)
    monkeypatch.setitem(RULES, "LT900", module.RULE)
    base, tuned = write_small(tmp_path / "base"), write_small(tmp_path / "tuned")
    for shard in tuned.glob("*.safetensors"):
        changed = {name: 1.01 * values if "mlp" in name else values for name, values in load_file(shard).items()}
        save_file(changed, shard)
    policy = tmp_path / "llmtrap.toml"
    policy.write_text('[gate.rules.LT900]\nmatch = ["embedding", "layers.0.*"]\n')

    judgement = llmtrap.gate(str(tuned), str(base), load_policy(policy), llmtrap.GateOptions(journal=None)).judgement

    found = {finding.id: finding.message for finding in judgement.findings if finding.rule == "LT900"}
    said = "changed by 1 % of the base's Frobenius norm, and the policy says that it is frozen"
    assert found == {"layers.0.mlp.gate": said, "layers.0.mlp.down": said}
    assert judgement.exit_code == 1


def test_the_tutorial_ends_with_the_collapsed_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_grokking_demo(tmp_path / "llmtrap-demo" / "grokking")
    monkeypatch.chdir(tmp_path)

    exec(compile(block("tutorial.md", "python"), "tutorial.md", "exec"), {})

    assert capsys.readouterr().out == "{'anti-grok.fc1'}\n"


def test_a_family_names_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "starship.toml"
    file.write_text(block("families.md", "toml"), encoding="utf-8")
    rng = np.random.default_rng(0)
    names = ("deck.0.warp.coil", "deck.0.warp.plasma_conduit", "sickbay.deck.0.warp.coil")
    (tmp_path / "model").mkdir()
    tensors = {f"{name}.weight": rng.standard_normal((64, 64)).astype(np.float32) for name in names}
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "starship"}))

    checkpoint = llmtrap.open_checkpoint(str(tmp_path / "model"), family=read_family(file))

    by_tensor = {matrix.tensors[0].removesuffix(".weight"): matrix for matrix in checkpoint.matrices}
    assert {name: matrix.role for name, matrix in by_tensor.items()} == {
        "deck.0.warp.coil": "mlp.up",
        "deck.0.warp.plasma_conduit": "mlp.down",
        "sickbay.deck.0.warp.coil": "mlp.up",
    }
    assert by_tensor["sickbay.deck.0.warp.coil"].part == "vision"
