"""The command on a hub's repository: what it says before the work, and how it ends when it is stopped or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import hub_faults as faults
from tests.support.hub import LoopbackHub
from tests.support.processes import LLMTRAP, Terminal, run, wait_for
from typer.testing import CliRunner

from llmtrap.cli import app
from llmtrap.demo import write_demo_checkpoint

Command = Callable[..., Any]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command") / "demo"
    write_demo_checkpoint(folder)
    return folder


@pytest.fixture
def commit(hub: LoopbackHub, demo: Path) -> str:
    """The demo on the hub as org/demo."""
    return hub.add("org/demo", demo)


@pytest.fixture
def llmtrap(hub: LoopbackHub, hub_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in a folder of its own; its workers see the same hub and home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(hub_home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


QUICK = ("--no-alpha", "--traps", "certify", "--workers", "1", "--json", "r.json")


def test_inspect_says_what_an_audit_would_do_from_headers_alone(
    hub: LoopbackHub, commit: str, llmtrap: Command, demo: Path
) -> None:
    shown = llmtrap("inspect", "org/demo")
    assert shown.exit_code == 0, shown.output
    facts = dict(re.findall(r"^(\w+)  +(.*?) *$", shown.stdout.partition("\n\n")[0], re.MULTILINE))
    assert facts["target"] == f"org/demo@{commit}"
    assert facts["family"] == "gpt_oss"
    assert facts["encodings"] == "BF16 and MXFP4"
    assert facts["files"] == "4 files from the hub"
    assert re.fullmatch(r"80, 7\.\d+ MB to read", facts["matrices"])
    assert re.fullmatch(r"about .+ with \d+ workers?, at this machine's present pace", facts["time"])
    shards = list(demo.glob("*.safetensors"))
    small = sum(path.stat().st_size for path in demo.glob("*.json"))
    assert hub.bytes_sent <= len(shards) * 65536 + small
    assert hub.count("api") == 1


def test_an_audit_says_first_what_it_will_do(hub: LoopbackHub, commit: str, llmtrap: Command) -> None:
    done = llmtrap("audit", "org/demo", *QUICK, "--include", "layers.0.*", "--journal", "j")
    assert done.exit_code == 0, done.output
    first, second, *_ = done.stderr.splitlines()
    assert first == f"org/demo@{commit}: gpt_oss, BF16 and MXFP4, 4 files from the hub"
    assert re.match(r"13 matrices to measure, .* kB; about ", second)
    document = json.loads(Path("r.json").read_text())
    assert document["target"]["revision"] == commit
    assert all(re.match("sha256:[0-9a-f]{64}$", file["digest"]) for file in document["target"]["files"])


@pytest.mark.parametrize(
    "form", ["hf://org/demo", "{endpoint}/org/demo", "{endpoint}/org/demo/tree/main", "org/demo@main"]
)
def test_every_form_of_the_name(form: str, hub: LoopbackHub, commit: str, llmtrap: Command) -> None:
    shown = llmtrap("inspect", form.format(endpoint=hub.endpoint))
    assert f"org/demo@{commit}" in shown.stdout


def test_download_keeps_the_files_and_the_next_audit_reads_them(
    hub: LoopbackHub, commit: str, llmtrap: Command, hub_home: Path, demo: Path
) -> None:
    # The first shard alone: the others are not asked for
    first = sorted(path.name for path in demo.glob("*.safetensors"))[0]
    done = llmtrap("audit", "org/demo", *QUICK, "--include", first, "--download", "--journal", "j")
    assert done.exit_code == 0, done.output
    assert [path.name for path in hub_home.rglob("snapshots/*/*.safetensors")] == [first]
    assert "4 files from the hub, 1 of them in its cache" in llmtrap("inspect", "org/demo").stdout


def test_what_is_no_model_or_not_open_ends_in_one_message(hub: LoopbackHub, commit: str, llmtrap: Command) -> None:
    hub.add("org/data", {"data.csv": b"1"}, kind="datasets")
    hub.add("org/gated", {"config.json": b"{}", "model.safetensors": bytes(100)})
    hub.repositories["org/gated"].gated = True
    for target, words in (
        ("datasets/org/demo", "named as a dataset, and llmtrap audits models"),
        ("org/data", "org/data is a dataset, and llmtrap audits models"),
        ("org/none", "there is no model repository org/none"),
        ("org/demo@v9", "has no revision 'v9'"),
        ("org/gated", f"is gated, and you are not logged in. Ask for access on {hub.endpoint}/org/gated"),
    ):
        done = llmtrap("audit", target, *QUICK)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("llmtrap: ")
        assert words in line


@pytest.mark.thorough
def test_ctrl_c_says_how_to_carry_on_and_loses_nothing(
    hub: LoopbackHub, commit: str, demo: Path, tmp_path: Path, hub_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(hub_home))
    hub.rule = faults.withheld(sorted(path.name for path in demo.glob("*.safetensors"))[-1])
    command = ["audit", "org/demo", *QUICK[:-1], str(tmp_path / "r.json"), "--journal", str(tmp_path / "j")]
    terminal = Terminal([LLMTRAP, *command])

    def measured() -> int:
        terminal.read()
        return sum(path.read_text().count('"kind":"matrix"') for path in (tmp_path / "j").glob("*.jsonl"))

    wait_for(lambda: measured() >= 5, "some matrices")
    terminal.press(b"\x03")
    assert terminal.wait() == 130, terminal.output
    assert "The same command carries on: llmtrap audit org/demo" in terminal.output.replace("\r\n", " ")
    hub.rule = faults.never
    again = run(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    remembered = re.search(r"(\d+) matrices to measure, .*; (\d+) already in the journal", again.stderr)
    assert remembered is not None
    assert int(remembered[2]) >= 5
    assert int(remembered[1]) + int(remembered[2]) == 80
