"""What ships with the package: the profile, and the demo's three checkpoints, which must show what they are for."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import as_file
from pathlib import Path

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from llmtrap.calibrate import grokking_demo_checkpoints, load_profile
from llmtrap.calibrate.demo import DEMO_PHASES
from llmtrap.cli import app
from llmtrap.spectra import AnalysisSettings, analyse


def test_the_shipped_profile_says_one_honest_sentence() -> None:
    profile = load_profile()
    assert profile.sentence.endswith("are not known for language models.")
    assert profile.sentence.count(". ") == 0
    assert sum(len(run.seeds) for run in profile.runs) >= 6
    rates = {(rate.task, rate.measure, rate.arms): rate for rate in profile.rates}
    assert {"centred", "mean_shift", "alpha_reliable"} == {measure for _, measure, _ in rates}
    sound = rates["mnist", "centred", "without weight decay"]
    assert sound.anti is not None
    assert sound.grok is not None
    areas = {(area.task, area.measure): area.area for area in profile.areas}
    for task, _ in areas:
        assert f"{areas[task, 'centred'].value:.2f}" in profile.sentence


def test_the_demo_shows_traps_in_the_collapsed_network_alone() -> None:
    counts, accuracies = [], []
    for folder, phase in zip(grokking_demo_checkpoints(), DEMO_PHASES, strict=True):
        with as_file(folder.joinpath("model.safetensors")) as file, safe_open(file, framework="np") as stored:
            words = stored.metadata()
            matrix = stored.get_tensor("fc1.weight")
        assert words["phase"] == phase
        accuracies.append((float(words["train_accuracy"]), float(words["test_accuracy"])))
        traps = analyse(matrix, AnalysisSettings(alpha=False, traps="auto"), matrix_id="fc1").traps
        assert traps is not None
        counts.append(traps.centred)
    assert counts[0] <= 1
    assert counts[1] <= 1
    assert counts[2] >= 5
    assert all(train >= 0.85 for train, _ in accuracies)
    assert accuracies[1][1] > max(accuracies[0][1], accuracies[2][1]) + 0.1


def test_the_demo_is_audited_as_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["audit", "--demo", "grokking", "--workers", "1", "--json", "a.json", "--markdown", "a.md"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "pre-grok train 1.00 test 0.34, grok train 1.00 test 0.85, anti-grok train 0.99 test 0.63" in done.output
    matrices = {item["id"]: item["traps"] for item in json.loads(Path("a.json").read_text())["matrices"]}
    assert {name for name, traps in matrices.items() if traps["centred"] and traps["reliable"]} == {"anti-grok.fc1"}
    assert matrices["grok.fc1"]["mean_shift"] == 1
    assert sum(file.stat().st_size for file in Path("llmtrap-demo").rglob("*.safetensors")) < 3_000_000
    assert load_profile().sentence in Path("a.md").read_text()


def test_reading_the_profile_needs_no_torch() -> None:
    code = "import sys; from llmtrap.calibrate import load_profile; load_profile(); print(int('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
