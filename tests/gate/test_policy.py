"""Policies: found, read, refused with the nearest known key; the written template is the default."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support.gated import Run, checkpoint

from llmtrap.errors import OutputError, UsageError
from llmtrap.gate.policy import Ignore, Policy
from llmtrap.gate.policy_file import load_policy
from llmtrap.gate.rules import RULES
from llmtrap.gate.template import template, write_template

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "gate").glob("*.toml"))


def written(folder: Path, text: str, name: str = "llmtrap.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_template_is_the_default_policy_with_every_key(tmp_path: Path) -> None:
    path = write_template(tmp_path)
    assert load_policy(path).policy == Policy()
    for rule in RULES.values():
        for key in rule.settings.model_fields:
            assert f"{key} = " in template()
    with pytest.raises(OutputError, match="policy already"):
        write_template(tmp_path)


def test_the_template_as_a_pyproject_says_the_same(tmp_path: Path) -> None:
    text = template().replace("[gate", "[tool.llmtrap.gate").replace("[[ignore", "[[tool.llmtrap.ignore")
    assert load_policy(written(tmp_path, text, "pyproject.toml")).policy == Policy()


def test_the_template_s_commented_lines_are_valid_too(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in template().splitlines()]
    uncommented = [line for line in lines if line.startswith("[") or " = " in line.partition("#")[0]]
    policy = load_policy(written(tmp_path, "\n".join(uncommented))).policy
    assert policy.ignore[0].rule == "LT001"
    assert policy.gate.baseline == "org/base-model"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_policies(path: Path) -> None:
    assert load_policy(path).policy != Policy()


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} == {"strict", "fine-tune", "lora"}


def test_own_file_wins_over_pyproject_and_nothing_means_the_default(tmp_path: Path) -> None:
    assert load_policy(folder=tmp_path).policy == Policy()
    assert load_policy(folder=tmp_path).path is None
    written(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml")
    assert load_policy(folder=tmp_path).path is None
    written(tmp_path, "[tool.llmtrap.gate]\nfalse_alarms = 0.02\n", "pyproject.toml")
    assert load_policy(folder=tmp_path).policy.gate.false_alarms == 0.02
    written(tmp_path, "[gate]\nfalse_alarms = 0.03\n")
    assert load_policy(folder=tmp_path).policy.gate.false_alarms == 0.03


def test_lines_of_rules_are_known_for_outputs_that_point_at_them(tmp_path: Path) -> None:
    loaded = load_policy(written(tmp_path, "\n[gate]\n\n[gate.rules.LT002]\nlevel = 'warn'\n"))
    assert (loaded.line("LT002"), loaded.line("LT001")) == (4, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gate]\nfalse_alarm = 1", r"unknown key 'gate.false_alarm'. Did you mean 'gate.false_alarms'"),
        ("[gates]\n", r"unknown key 'gates'. Did you mean 'gate'"),
        ("[gate.rules.LT01]\n", r"unknown key 'gate.rules.LT01'. Did you mean 'gate.rules.LT0"),
        ("[gate.rules.LT001]\nmargn = 2", r"unknown key 'gate.rules.LT001.margn'. Did you mean '.*margin'"),
        ("[[ignore]]\nrule = 'LT001'\nmatches = '*'\nreason = 'x'", r"'ignore.matches'. Did you mean 'ignore.match'"),
        ("[[ignore]]\nrule = 'LT001'\nmatch = '*'", r"ignore.0.reason.*required"),
        ("[[ignore]]\nrule = 'LT001'\nmatch = '*'\nreason = ''", r"ignore.0.reason"),
        ("[[ignore]]\nrule = 'LT999'\nmatch = '*'\nreason = 'x'", r"there is no rule 'LT999'"),
        ("[[ignore]]\nrule='LT001'\nmatch='*'\nreason='x'\nexpires='soon'", r"ignore.0.expires"),
        ("[gate.rules.LT001]\nlevel = 'fatal'", r"gate.rules.LT001.level"),
        ("[gate.rules.LT006]\nmin_coverage = 2", r"gate.rules.LT006.min_coverage"),
        ("[gate.rules.LT001]\nmargin = nan", r"gate.rules.LT001.margin"),
        ("[gate]\nfalse_alarms = 5e-324", r"gate.false_alarms.*greater than or equal to 0.000000001"),
        ("gate = 3", r"'gate'"),
        ("[gate]\nrules = 3", r"gate.rules"),
        ("[gate.rules]\nLT001 = 'off'", r"gate"),
        ("ignore = 'all'", r"'ignore'"),
        ("[gate\n", r"not TOML"),
    ],
)
def test_a_bad_policy_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        load_policy(written(tmp_path, text))
    assert "llmtrap.toml" in caught.value.message
    assert caught.value.exit_code == 2


def test_a_policy_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")
    with pytest.raises(UsageError, match=r"no \[tool.llmtrap.gate\] table"):
        load_policy(written(tmp_path, "[project]\n", "pyproject.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_policy(tmp_path / "binary.toml")


# -- a policy that the target brings along --------------------------------------------------------------------------

OFF = "[gate.rules.LT001]\nlevel = 'off'\n"


def test_a_policy_in_the_target_is_not_read_and_the_output_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "stranger"
    target.mkdir()
    written(target, OFF)
    written(target, OFF.replace("[gate", "[tool.llmtrap.gate"), "pyproject.toml")
    (target / "model.safetensors").touch()
    monkeypatch.chdir(target)
    for judged in (".", str(target), "model.safetensors", "..", "../stranger"):
        loaded = load_policy(target=judged)
        assert (loaded.policy, loaded.path) == (Policy(), None)
        note = "llmtrap.toml lies in the target and was not read: name it with --policy to judge by it"
        assert loaded.notes == (note,)
        named = load_policy(Path("llmtrap.toml"), target=judged)
        assert named.policy.settings("LT001").level == "off"
        assert named.notes == ("the policy llmtrap.toml belongs to the target",)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llmtrap.toml").symlink_to(target / "llmtrap.toml")
    assert load_policy(target="stranger").path is None
    (tmp_path / "llmtrap.toml").unlink()
    written(tmp_path, OFF)
    for judged in ("stranger", "report.json", "org/model"):
        loaded = load_policy(target=judged)
        assert (loaded.path, loaded.notes) == (Path("llmtrap.toml"), ())


@pytest.mark.parametrize("kind", ["fifo", "zero", "folder"])
def test_a_policy_is_a_regular_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "llmtrap.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UsageError, match=r"cannot be read: this is (not a regular file|a folder)"):
        load_policy(path)


@pytest.mark.parametrize(
    "text",
    ["x = " + "9" * 5000, "x = " + "[" * 5000, "\ud800", "a.b = 1\n" * 2, 'x = "\x1b[2J"', '"\\u001b[2J##[x]y" = 1'],
    ids=["digits", "deep", "surrogate", "twice", "escape", "key"],
)
def test_what_is_no_policy_is_told_in_words_fit_to_be_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "llmtrap.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert caught.value.problem.isprintable()
    assert "##[" not in caught.value.problem


@pytest.mark.parametrize(
    ("match", "meant"),
    [
        ("part=vision", ["vision.layers.0.mlp.up", "vision.sam_model.layers.1.attention.o"]),
        ("part=text", ["layers.0.mlp.up", "text_encoder/layers.0.mlp.up", "embedding"]),
        ("part=*", None),
        ("layers.*", ["layers.0.mlp.up"]),
        ("checkpoint", []),
    ],
)
def test_an_ignore_may_be_of_a_part_of_the_model(match: str, meant: list[str] | None) -> None:
    ids = [
        "layers.0.mlp.up", "vision.layers.0.mlp.up", "text_encoder/layers.0.mlp.up", "embedding",
        "vision.sam_model.layers.1.attention.o",
    ]  # fmt: skip
    ignore = Ignore(rule="LT001", match=match, reason="looked at")
    expected = set(ids if meant is None else meant)
    assert {id_ for id_ in ids if ignore.means("LT001", id_)} == expected
    assert not ignore.means("LT002", "layers.0.mlp.up")
    assert ignore.means("LT001", None) == (match == "checkpoint")


# -- policies to start from --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*EXAMPLES, None], ids=lambda path: "template" if path is None else path.stem)
def test_a_policy_to_start_from_warns_of_nothing(run: Run, tmp_path: Path, path: Path | None) -> None:
    checkpoint(tmp_path / "copy")
    own = tmp_path / "llmtrap.toml"
    if path is None:
        assert run("--init").exit_code == 0
    else:
        own.write_bytes(path.read_bytes())
    result = run("copy", "--baseline", "base", "--output", "json=out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert (result.exit_code, document["findings"], document["notes"]) == (0, [], [])
    assert document["policy"]["path"] == "llmtrap.toml"
    assert "warn" not in result.stderr.lower()
