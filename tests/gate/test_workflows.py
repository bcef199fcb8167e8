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
from tests.support.audits import audit
from typer.testing import CliRunner

from llmtrap.cli import app
from llmtrap.gate.rules import RULES
from llmtrap.report.json import write_json

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
        # Lines that call the command, gather its arguments, or go on with them
        if re.search(r"llmtrap gate|arguments|^\s*--", line):
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
             "EXIT_ZERO": "false", "JOURNAL": "journal", "RESULT": "result.json", "POLICIES": "policies",
             "BASE_REF": "", "TIMEOUT": "10", "BIN": str(Path(sys.executable).parent),
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
    assert f"--output junit={job['artifacts']['reports']['junit']}" in job["script"][-1]
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


def test_the_hooks_call_the_command_and_know_their_files(tmp_path: Path, environment: dict[str, str]) -> None:
    hooks = {hook["id"]: hook for hook in load(ROOT / ".pre-commit-hooks.yaml")}
    assert {name: hook["entry"] for name, hook in hooks.items()} == {
        "llmtrap-gate": "llmtrap gate", "llmtrap-gate-report": "llmtrap gate --reports --",
    }  # fmt: skip
    pattern = hooks["llmtrap-gate-report"]["files"]
    for name in ("out/model.report.json", "llmtrap-reports/model/report.json", "a/llmtrap-reports/model/report.json"):
        assert re.search(pattern, name)
    assert not re.search(pattern, "llmtrap-reports/model/report.html")


def test_several_reports_are_judged_at_once_and_no_name_is_an_option(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    for name, entry in (("good", 0.0), ("bad", 60.0)):
        write_json(audit(checkpoint(tmp_path / name, entry), alpha=False), tmp_path / f"{name}.report.json")
    (tmp_path / "--policy=x.report.json").write_bytes((tmp_path / "good.report.json").read_bytes())
    names = ["--policy=x.report.json", "good.report.json", "bad.report.json"]
    for given, code in ((names[:2], 0), (names, 1), (names[::-1], 1), ([*names[:2], "none.json"], 2)):
        command = ["llmtrap", "gate", "--reports", "--", *given]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    done = subprocess.run(
        ["llmtrap", "gate", *names[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "give --reports to judge several reports" in done.stderr


def test_a_pull_request_is_judged_by_the_policy_of_its_base(tmp_path: Path, environment: dict[str, str]) -> None:
    """The pull request turns all rules but one off in its own policy; the base branch has none, and then another."""
    origin, work = tmp_path / "origin", tmp_path / "work"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]

    def run(*command: str | Path, cwd: Path) -> None:
        subprocess.run([*git, *map(str, command)], cwd=cwd, check=True, capture_output=True)

    origin.mkdir()
    run("init", cwd=origin)
    run("commit", "--allow-empty", "-m", "a", cwd=origin)
    run("clone", origin, work, cwd=tmp_path)
    off = "".join(f"[gate.rules.{rule}]\nlevel = 'off'\n" for rule in RULES if rule != "LT005")
    (work / "llmtrap.toml").write_text("[gate]\n" + off)
    base, target = checkpoint(tmp_path / "base"), checkpoint(work / "tuned", 60.0)
    (step,) = [step for step in load(ROOT / "action.yml")["runs"]["steps"] if step.get("id") == "gate"]
    given = {"TARGET": str(target), "BASELINE": str(base), "POLICY": "", "SARIF": "", "HTML": "", "EXIT_ZERO": "false",
             "JOURNAL": "../journal", "RESULT": str(tmp_path / "r.json"), "POLICIES": str(tmp_path / "policies"),
             "BASE_REF": "main", "TIMEOUT": "10", "BIN": str(Path(sys.executable).parent),
             "GITHUB_OUTPUT": str(tmp_path / "output")}  # fmt: skip
    script = tmp_path / "script.sh"
    script.write_text(step["run"])
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    done = subprocess.run(command, cwd=work, env=environment | given, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (origin / "llmtrap.toml").write_text("[gate]\n" + off)
    run("add", "llmtrap.toml", cwd=origin)
    run("commit", "-m", "b", cwd=origin)
    done = subprocess.run(command, cwd=work, env=environment | given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_action_pins_what_it_uses_and_leaves_the_job_alone() -> None:
    steps = load(ROOT / "action.yml")["runs"]["steps"]
    used = [step["uses"] for step in steps if "uses" in step]
    workflow = load(EXAMPLES / "github-workflow.yml")["jobs"]["gate"]
    used += [step["uses"] for step in workflow["steps"] if "llmtrap@" not in step.get("uses", "llmtrap@")]
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) for name in used)
    assert not any("setup-python" in name for name in used)
    assert workflow["timeout-minutes"] > 0
    assert [step.get("if") for step in steps if "cache/save" in step.get("uses", "")] == ["always()"]
    install = next(step for step in steps if step["name"] == "Install llmtrap")
    assert "--require-hashes" in install["run"]
    assert "HF_TOKEN" not in install["env"]
    assert install["run"].index("unset HF_TOKEN") < install["run"].index("-m venv")
    locked = (ROOT / "requirements" / "action.txt").read_text()
    assert len(re.findall(r"^[\w.-]+==", locked, re.M)) > 20
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[\w.-]+==)", locked)[1:])


@pytest.mark.parametrize(
    ("version", "installed"),
    [("0.1.0", "llmtrap==0.1.0"), (">=0.1,<0.2", "llmtrap>=0.1,<0.2"), ("-evil", None), ("==1; import os", None),
     ("@ https://example.invalid/x.zip", None), ("==1 other", None)],
)  # fmt: skip
def test_a_version_is_a_version_of_llmtrap(tmp_path: Path, version: str, installed: str | None) -> None:
    """The script with a Python that only notes how it was called."""
    (install,) = [step for step in load(ROOT / "action.yml")["runs"]["steps"] if step["name"] == "Install llmtrap"]
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\n[ "$2" != venv ] || { mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; }\n'
                    'echo "$HF_TOKEN$*" >> "$NOTES"\n')  # fmt: skip
    fake.chmod(0o755)
    notes = tmp_path / "notes"
    notes.touch()
    given = {"VERSION": version, "PYTHON": str(fake), "PLACE": str(tmp_path / "place"), "NOTES": str(notes),
             "HF_TOKEN": "hf_secret", "GITHUB_ACTION_PATH": str(tmp_path)}  # fmt: skip
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", install["run"]], env={**os.environ, **given},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    called = notes.read_text()
    assert "hf_secret" not in called
    assert (done.returncode == 0) == (installed is not None)
    assert (f" {installed}\n" in called) if installed else ("pip" not in called)


def test_the_gitlab_job_believes_nothing_that_a_merge_request_can_write() -> None:
    job = load(EXAMPLES / "gitlab-ci.yml")["gate"]
    text = " ".join(job["script"])
    assert "--journal /tmp/" in text
    assert "--policy /tmp/" in text
    assert "cache" not in job
