"""`llmtrap gate` as a command: exit codes, files, what GitHub shows, the first steps of a new user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tests.support.audits import audit
from tests.support.gated import Run, checkpoint, planted
from tests.support.planting import write_planted
from tests.support.small_checkpoint import write_small
from typer.testing import CliRunner

from llmtrap.cli import app
from llmtrap.gate.outputs import OUTPUTS
from llmtrap.report.json import write_json


def test_an_equal_checkpoint_passes(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "copy")
    result = run("copy", "--baseline", "base")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        0, "Passed. Of 3 matrices: 0 judged, 3 unchanged; nothing new or worse.",
    )  # fmt: skip


def test_a_subfolder_of_the_target_is_judged_alone(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "run" / "good")
    checkpoint(tmp_path / "run" / "bad", two=planted())
    assert run("run", "--subfolder", "good", "--baseline", "base").exit_code == 0
    assert run("run", "--subfolder", "bad", "--baseline", "base").exit_code == 1
    write_json(audit(tmp_path / "base"), tmp_path / "base.json")
    result = run("base.json", "--subfolder", "good", "--baseline", "base")
    assert (result.exit_code, "a report has no subfolder" in result.stderr) == (2, True)


def test_a_planted_entry_fails_unless_only_reported(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "tuned", two=planted())
    result = run("tuned", "--baseline", "base")
    assert result.exit_code == 1
    assert "error   LT001 new-trap: two: new trap" in result.stdout
    assert "row 4, column 5" in result.stdout
    assert run("tuned", "--baseline", "base", "--exit-zero").exit_code == 0


def test_reports_without_alpha_are_judged_by_their_predicted_traps(run: Run, tmp_path: Path) -> None:
    write_small(tmp_path / "small", scale=2)
    write_planted(tmp_path / "planted")
    for name in ("small", "planted"):
        write_json(audit(tmp_path / name, alpha=False), tmp_path / f"{name}.json")
    result = run("planted.json", "--baseline", "small.json")
    assert result.exit_code == 1
    findings = [line.split(": ") for line in result.stdout.splitlines() if line.startswith("error   LT001")]
    assert [name for _, name, *_ in findings].count("layers.1.attention.q") == 2
    assert {name: words for _, name, *_, words in findings if "attention" not in name} == {
        "layers.0.mlp.down": "the entry at row 7, column 11, 80.7 standard deviations from the mean; the base has no "
        "trap, this has 1 trap",
        "layers.1.mlp.gate": "the mean of all entries moved off zero; the base has no trap, this has 1 trap",
    }
    assert "at most 0.000006 by chance over the audit (6 tests for traps, 0 of α)" in result.stdout
    same = run("planted.json", "--baseline", "planted.json")
    assert same.exit_code == 3
    assert "Not judged: nothing was found, and " in same.stdout
    assert "open    LT010 large-update: not judged in " in same.stdout


def test_what_could_not_be_audited_is_2_and_what_could_not_be_judged_is_3(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    other = tmp_path / "other"
    other.mkdir()
    save_file({"else.weight": rng.standard_normal((70, 60)).astype(np.float32)}, other / "model.safetensors")
    assert run("other", "--baseline", "base").exit_code == 3
    assert run("other", "--baseline", "base", "--exit-zero").exit_code == 3
    for arguments in (("nowhere", "--baseline", "base"), ("base", "--baseline", "nowhere"), (), ("none.json",)):
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert "Traceback" not in result.output
    (tmp_path / "base" / "model.safetensors").write_bytes(b"broken")
    assert run("base").exit_code == 2
    assert run("base", "--exit-zero").exit_code == 2


def test_a_bad_policy_or_output_is_2_and_says_what_is_known(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[gate.rules.LT001]\ntolerence = 1\n")
    result = run("base", "--policy", "bad.toml")
    assert result.exit_code == 2
    assert "unknown key 'gate.rules.LT001.tolerence'" in result.output
    result = run("base", "--output", "yaml=x")
    assert result.exit_code == 2
    assert "text, json, markdown, sarif, junit, github, html" in result.output
    assert CliRunner().invoke(app, ["gate", "base", "--workers", "0"]).exit_code == 2
    assert run("base", "--no-such-option").exit_code == 2


def test_init_then_gate_runs_with_no_edit(run: Run, tmp_path: Path) -> None:
    assert run("--init").exit_code == 0
    checkpoint(tmp_path / "tuned", two=planted())
    assert run("tuned", "--baseline", "base").exit_code == 1
    assert run("base", "--baseline", "base").exit_code == 0
    assert run("--init").exit_code == 2


def test_every_output_is_written_at_once(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "tuned", two=planted())
    wanted = [part for name in OUTPUTS for part in ("--output", f"{name}=out/{name}")]
    result = run("tuned", "--baseline", "base", "--quiet", *wanted)
    assert (result.exit_code, result.stdout) == (1, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(OUTPUTS)
    document = json.loads((tmp_path / "out" / "json").read_text())
    assert [finding["rule"] for finding in document["findings"]][:1] == ["LT001"]
    assert document["updates"][0]["row"] == 4
    assert "two" in (tmp_path / "out" / "html").read_text()


def test_on_github_the_summary_and_the_annotations_come_by_themselves(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "tuned", two=planted())
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    result = run("tuned", "--baseline", "base", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert "::error file=llmtrap.toml,line=1,title=LT001 new-trap::two: new trap" in result.stdout
    text = summary.read_text()
    assert text.startswith("before\n# llmtrap gate: Violated")
    assert "| error | LT001 new-trap | `two` |" in text


def test_the_baseline_may_stand_in_the_policy_beside_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ci").mkdir()
    checkpoint(tmp_path / "ci" / "base")
    checkpoint(tmp_path / "tuned", two=planted())
    (tmp_path / "ci" / "policy.toml").write_text('[gate]\nbaseline = "base"\n')
    result = run("tuned", "--policy", "ci/policy.toml")
    assert result.exit_code == 1
    assert "base          base\n" in result.stdout  # the last part of a local path alone is shown


def test_without_a_base_the_absolute_rules_judge(run: Run, tmp_path: Path) -> None:
    assert run("base").exit_code == 0
    checkpoint(tmp_path / "tuned", two=planted())
    result = run("tuned")
    assert result.exit_code == 1
    assert "LT011 max-traps: two: 1 centred trap and 0 allowed" in result.stdout


def test_the_base_is_measured_once(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "tuned", two=planted())
    run("tuned", "--baseline", "base")
    lines = {path.name: path.read_text().count('"kind":"matrix"') for path in (tmp_path / "journal").glob("*.jsonl")}
    run("tuned", "--baseline", "base")
    again = {path.name: path.read_text().count('"kind":"matrix"') for path in (tmp_path / "journal").glob("*.jsonl")}
    assert lines == again
    assert sorted(lines.values()) == [1, 1]
