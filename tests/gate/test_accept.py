"""`llmtrap gate --accept`: what was found, and nothing else, is let through until its day, by the right file."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.gated import Run, checkpoint, planted

from llmtrap.errors import OutputError, UsageError
from llmtrap.gate.accept import Accepted, accept, prepare
from llmtrap.gate.document import Finding, Judgement
from llmtrap.gate.policy import Ignore
from llmtrap.gate.policy_file import load_policy

WHY = ("--accept", 'seen "by hand"', "--expires", "2199-03-01")
LATER = datetime.date(2199, 3, 1)
TODAY = datetime.date(2026, 3, 1)


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "tuned", two=planted())


def test_what_was_found_is_accepted_and_the_next_gate_passes(run: Run, tmp_path: Path, tuned: Path) -> None:
    found = run("tuned", "--baseline", "base")
    rules = {line.split()[1] for line in found.stdout.splitlines() if line.startswith("error")}
    assert (found.exit_code, "LT001" in rules) == (1, True)
    result = run("tuned", "--baseline", "base", *WHY)
    assert result.exit_code == 0, result.output
    assert f"written: {len(rules)} ignores into the new file llmtrap.toml, until 2199-03-01: " in result.stderr
    assert "ignored LT001 new-trap: two" in result.stdout
    ignores = load_policy(tmp_path / "llmtrap.toml").policy.ignore
    assert {ignore.rule for ignore in ignores} == rules
    assert all((it.match, it.reason, it.expires) == ("two", 'seen "by hand"', LATER) for it in ignores)
    assert run("tuned", "--baseline", "base").exit_code == 0
    again = run("tuned", "--baseline", "base", *WHY)
    assert "nothing to accept: no rule is violated; llmtrap.toml is as it was" in again.stderr
    checkpoint(tmp_path / "other", two=planted(), three=planted())
    assert run("other", "--baseline", "base").exit_code == 1


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_the_rest_of_the_policy_is_kept_byte_for_byte(run: Run, tmp_path: Path, tuned: Path, ending: str) -> None:
    text = f"# mine{ending or chr(10)}[gate]{ending or chr(10)}  false_alarms=0.02 # so{ending}".encode()
    (tmp_path / "ci.toml").write_bytes(text)
    result = run("tuned", "--baseline", "base", "--policy", "ci.toml", *WHY)
    assert result.exit_code == 0, result.output
    after = (tmp_path / "ci.toml").read_bytes()
    assert after.startswith(text)
    assert (b"\r" in after, b"\n" in after.replace(b"\r\n", b"")) == ("\r" in ending, "\r" not in ending)
    policy = load_policy(tmp_path / "ci.toml").policy
    assert (policy.gate.false_alarms, bool(policy.ignore)) == (0.02, True)
    assert not (tmp_path / "llmtrap.toml").exists()


def test_a_policy_in_pyproject_is_added_to_where_it_stands(run: Run, tmp_path: Path, tuned: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n\n[tool.llmtrap.gate]\nfalse_alarms = 0.02\n")
    assert run("tuned", "--baseline", "base", *WHY).exit_code == 0
    assert not (tmp_path / "llmtrap.toml").exists()
    content = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    assert {it["match"] for it in content["tool"]["llmtrap"]["ignore"]} == {"two"}


def test_an_ignore_past_its_day_holds_no_more_and_is_said(run: Run, tmp_path: Path, tuned: Path) -> None:
    assert run("tuned", "--baseline", "base", *WHY).exit_code == 0
    path = tmp_path / "llmtrap.toml"
    path.write_text(path.read_text().replace("2199-03-01", "2020-03-01"))
    result = run("tuned", "--baseline", "base")
    assert result.exit_code == 1
    assert "ignore of LT001 for 'two' expired on 2020-03-01: it holds no more" in result.stdout
    assert run("tuned", "--baseline", "base", *WHY).exit_code == 0


def test_what_could_not_be_judged_is_not_accepted(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    checkpoint(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").unlink()
    save_file({"else.weight": rng.standard_normal((70, 60)).astype(np.float32)}, tmp_path / "other/model.safetensors")
    result = run("other", "--baseline", "base", *WHY)
    assert (result.exit_code, "nothing to accept" in result.stderr) == (3, True)
    assert not (tmp_path / "llmtrap.toml").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--accept", " "), "--accept has no reason"),
        (("--accept", "x", "--expires", "2020-01-01"), "--expires 2020-01-01 has passed"),
        (("--accept", "x", "--expires", "soon"), "soon"),
        (("--expires", "2199-01-01"), "--expires is of what --accept writes"),
        (("--accept", "x", "--policy", "tuned/p.toml"), "lies in the target"),
        (("--accept", "x", "--policy", "tuned"), "folder"),
    ],
)
def test_what_cannot_be_accepted_is_said_before_anything_is_measured(
    run: Run, tmp_path: Path, tuned: Path, options: Sequence[str], words: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run("tuned", "--baseline", "base", *options)
    assert (result.exit_code, words in result.output) == (2, True), result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_no_policy_is_written_into_the_target_that_is_the_current_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: Path
) -> None:
    monkeypatch.chdir(tuned)
    result = run(".", "--baseline", "../base", *WHY)
    assert (result.exit_code, "lies in the target" in result.output) == (2, True)
    assert [path.name for path in tuned.iterdir()] == ["model.safetensors"]


def test_a_link_is_followed_only_where_it_was_typed(run: Run, tmp_path: Path, tuned: Path) -> None:
    real = tmp_path / "elsewhere" / "real.toml"
    real.parent.mkdir()
    real.write_text("[gate]\n")
    (tmp_path / "llmtrap.toml").symlink_to(real)
    result = run("tuned", "--baseline", "base", *WHY)
    assert (result.exit_code, "is a link" in result.output, real.read_text()) == (2, True, "[gate]\n")
    assert run("tuned", "--baseline", "base", "--policy", "llmtrap.toml", *WHY).exit_code == 0
    assert (tmp_path / "llmtrap.toml").is_symlink()
    assert "[[ignore]]" in real.read_text()


# -- names that mean something to a glob or to TOML --------------------------------------------------------------------


def finding(identity: str | None, **changes: Any) -> Finding:
    given = {
        "rule": "LT001", "name": "new-trap", "level": "error", "id": identity, "tensor": None, "kind": "mlp",
        "message": "a trap\n[gate]", "severity": 1.0, "fingerprint": "f",
    }  # fmt: skip
    return Finding.model_validate(given | changes)


def accepted(judgement: Judgement, path: Path, findings: Sequence[Finding], reason: str = "why") -> Accepted:
    acceptance = prepare(reason, None, path, "nowhere", TODAY)
    return accept(judgement.model_copy(update={"findings": tuple(findings)}), acceptance)


@pytest.mark.parametrize("name", ["a[0].b*?", "part=vision", 'quote"back\\slash', "new\nline", "a\u202eb", "é.😀"])
def test_an_ignore_means_its_own_matrix_and_no_other(hostile: Judgement, tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.toml"
    done = accepted(hostile, path, [finding(name)], reason=f"because of {name}")
    assert done.new_file
    (ignore,) = load_policy(path).policy.ignore
    assert ignore == done.ignores[0]
    assert ignore.reason == f"because of {name}"
    assert ignore.means("LT001", name)
    assert not any(ignore.means("LT001", other) for other in ("a0.bxx", "vision.layers.0.q", "other", None))
    assert load_policy(path).policy.gate == load_policy(folder=tmp_path).policy.gate


def test_warnings_ignored_findings_and_repetitions_write_nothing_twice(hostile: Judgement, tmp_path: Path) -> None:
    given = [
        finding("a"), finding("a", fingerprint="g"), finding("b", level="warn"), finding("c", ignored="known"),
        finding(None, rule="LT012", name="outside-matrices"), finding(None, rule="LT006", name="coverage"),
    ]  # fmt: skip
    done = accepted(hostile, tmp_path / "p.toml", given)
    assert done.ignores == (
        Ignore(rule="LT001", match="a", reason="why"), Ignore(rule="LT012", match="checkpoint", reason="why"),
    )  # fmt: skip


def test_a_policy_that_takes_no_more_blocks_is_left_alone(hostile: Judgement, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('ignore = [{ rule = "LT002", match = "x", reason = "y" }]\n')
    before = path.read_bytes()
    with pytest.raises(UsageError, match="ignores cannot be appended"):
        accepted(hostile, path, [finding("a")])
    with pytest.raises(UsageError, match="more than a policy may hold"):
        accepted(hostile, tmp_path / "q.toml", [finding(f"layers.{i}.x") for i in range(20_000)])
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


def test_a_place_that_cannot_be_written_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        prepare("why", None, tmp_path / "file" / "p.toml", "nowhere", TODAY)
