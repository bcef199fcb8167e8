"""The action, the hooks and the pasted workflows: they parse, call options that exist, and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from llmtrap.cli import app

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "gate"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def known_options() -> set[str]:
    text = CliRunner().invoke(app, ["gate", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    return set(re.findall(r"--[a-z-]+", text))


@pytest.mark.parametrize("path", [ROOT / "action.yml", *sorted(EXAMPLES.iterdir())], ids=lambda path: path.name)
def test_every_option_that_is_used_exists(path: Path) -> None:
    used = set()
    for line in path.read_text().splitlines():
        if "pip install" not in line:
            used |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line))
    assert used <= known_options()


def test_the_action_s_inputs_are_the_ones_it_uses_and_none_is_pasted_into_a_script() -> None:
    action = load(ROOT / "action.yml")
    text = (ROOT / "action.yml").read_text()
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == set(action["inputs"])
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert ("uses" in step) or step["shell"] == "bash"


@pytest.mark.parametrize(
    ("schema", "path", "transform"),
    [
        ("vendor.github-actions", ROOT / "action.yml", None),
        ("vendor.github-workflows", EXAMPLES / "github-workflow.yml", None),
        ("vendor.gitlab-ci", EXAMPLES / "gitlab-ci.yml", "gitlab-ci"),
    ],
    ids=["action", "workflow", "gitlab"],
)
def test_the_snippets_keep_to_their_vendors_schemas(schema: str, path: Path, transform: str | None) -> None:
    pytest.importorskip("check_jsonschema")
    options = [] if transform is None else ["--data-transform", transform]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def checkpoint(folder: Path, entry: float = 0.0) -> Path:
    matrix = np.random.default_rng(5).standard_normal((120, 80)).astype(np.float32)
    if entry:
        matrix[4, 5] = entry
    folder.mkdir()
    save_file({"one.weight": matrix}, folder / "model.safetensors")
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where `llmtrap` and `python` are the ones under test, and journals go aside."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("entry", "code", "outcome"), [(0.0, 0, "passed"), (60.0, 1, "violated")])
def test_the_action_s_script_runs(
    tmp_path: Path, environment: dict[str, str], entry: float, code: int, outcome: str
) -> None:
    base, target = checkpoint(tmp_path / "base"), checkpoint(tmp_path / "tuned; touch owned", entry)
    (step,) = [step for step in load(ROOT / "action.yml")["runs"]["steps"] if step.get("id") == "gate"]
    given = {"TARGET": str(target), "BASELINE": str(base), "POLICY": "", "SARIF": "x.sarif", "HTML": "",
             "EXIT_ZERO": "false", "JOURNAL": "journal", "RESULT": "result.json",
             "GITHUB_OUTPUT": str(tmp_path / "output")}  # fmt: skip
    script = tmp_path / "script.sh"
    script.write_text(step["run"])
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], cwd=tmp_path, env=environment | given,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert (tmp_path / "output").read_text() == f"exit-code={code}\noutcome={outcome}\n"
    assert (tmp_path / "x.sarif").exists()
    assert not (tmp_path / "owned").exists()


def test_the_shell_example_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    base, target = checkpoint(tmp_path / "base"), checkpoint(tmp_path / "tuned", 60.0)
    shell = shutil.which("sh") or "sh"
    done = subprocess.run(
        [shell, str(EXAMPLES / "gate.sh"), str(target), str(base)], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "violated: see gate.html" in done.stderr
    assert (tmp_path / "gate.html").exists()


def test_the_github_workflow_passes_inputs_that_the_action_has() -> None:
    workflow = load(EXAMPLES / "github-workflow.yml")
    action = load(ROOT / "action.yml")
    (step,) = [s for s in workflow["jobs"]["gate"]["steps"] if "llmtrap@" in s.get("uses", "")]
    assert set(step["with"]) <= set(action["inputs"])
    assert {name for name, given in action["inputs"].items() if given.get("required")} <= set(step["with"])
    assert workflow["permissions"]["security-events"] == "write"


def test_the_gitlab_job_shows_the_file_that_it_writes() -> None:
    job = load(EXAMPLES / "gitlab-ci.yml")["gate"]
    assert f"--output junit={job['artifacts']['reports']['junit']}" in job["script"][0]
    assert job["artifacts"]["when"] == "always"


def test_hf_finds_it_as_an_extension(tmp_path: Path, environment: dict[str, str]) -> None:
    """As `hf extensions install` leaves it: a manifest that names the console script `hf-llmtrap`."""
    script = Path(sys.executable).parent / "hf-llmtrap"
    if not script.exists() or shutil.which("hf", path=str(script.parent)) is None:
        pytest.skip("llmtrap is not installed beside the hf command")
    manifest = {
        "owner": "owner", "repo": "hf-llmtrap", "repo_id": "owner/hf-llmtrap", "short_name": "llmtrap",
        "executable_path": str(script), "type": "python", "installed_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    folder = tmp_path / "home" / ".local" / "share" / "hf" / "extensions" / "hf-llmtrap"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    base, target = checkpoint(tmp_path / "base"), checkpoint(tmp_path / "tuned", 60.0)
    done = subprocess.run(
        ["hf", "llmtrap", "gate", str(target), "--baseline", str(base)], cwd=tmp_path, capture_output=True, text=True,
        env=environment | {"HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("Violated: ")


def test_the_hooks_call_the_command_and_know_their_files() -> None:
    hooks = {hook["id"]: hook for hook in load(ROOT / ".pre-commit-hooks.yaml")}
    assert set(hooks) == {"llmtrap-gate", "llmtrap-gate-report"}
    for hook in hooks.values():
        assert (hook["entry"], hook["language"]) == ("llmtrap gate", "python")
    assert re.search(hooks["llmtrap-gate-report"]["files"], "out/model.report.json")
