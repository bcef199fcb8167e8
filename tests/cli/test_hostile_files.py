"""Files that a command is given or finds: whatever they are, one clear line blames them, and nothing is waited for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.support import documents

from llmtrap.cli.demo import planted_found
from llmtrap.cli.report_folder import free_folder
from llmtrap.demo.manifest import MANIFEST_NAME
from llmtrap.errors import CheckpointError

FILE = "FILE"
COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("report", FILE),
    "report --against": ("report", "good.json", "--against", FILE),
    "report --ablation": ("report", "good.json", "--ablation", FILE),
    "report --reference": ("report", "good.json", "--reference", FILE),
    "gate": ("gate", "--reports", "good.json", FILE),
    "gate --baseline": ("gate", "good.json", "--baseline", FILE),
    "gate --trajectory": ("gate", "good.json", "--trajectory", FILE),
    "gate --policy": ("gate", "good.json", "--policy", FILE),
    "gate --accept": ("gate", "good.json", "--policy", FILE, "--accept", "known"),
    "watch": ("watch", ".", "--once", "--json", FILE),
    "watch --policy": ("watch", ".", "--once", "--json", "t.json", "--policy", FILE),
    "reference": ("reference", FILE),
    "reference build": ("reference", "build", FILE, "--out", "r.json"),
    "merge": ("merge", FILE, "--json", "m.json"),
    "audit --family": ("audit", "small", "--family", FILE, "--json", "r.json"),
    "calibrate": ("calibrate", "--from-trajectory", FILE, "--scores", FILE),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 41)


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 200_000)


def number(path: Path) -> None:
    path.write_text('{"schema": 1' + "0" * 5_000 + "}")


KINDS = (fifo, device, folder, circle, endless, deep, number)


@pytest.fixture
def here(invoke: Any, report: Path, small: Path) -> Path:
    Path("good.json").write_bytes(report.read_bytes())
    small.rename("small")
    return Path.cwd()


@pytest.mark.parametrize("command", COMMANDS)
def test_one_line_blames_the_file(invoke: Any, here: Path, command: str) -> None:
    for make in KINDS:
        name = f"[b]{make.__name__}##[x]\x1b.json"
        make(here / name)
        done = invoke(*(name if part == FILE else part for part in COMMANDS[command]))
        assert done.exit_code == 2, (make.__name__, done.output)
        assert isinstance(done.exception, SystemExit)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("llmtrap: "), done.stderr
        assert make.__name__ in last
        assert "fault in llmtrap" not in last
        assert "\x1b" not in done.output
        assert "##[" not in done.output


@pytest.mark.parametrize("make", KINDS, ids=lambda it: it.__name__)
def test_what_lies_where_a_report_will_be_written_is_not_taken_for_one(tmp_path: Path, make: Any) -> None:
    place = tmp_path / "name"
    place.mkdir()
    make(place / "report.json")
    found = free_folder(place, documents.clean())
    # A file that is no report of these weights stays; what is no file is refused by whoever writes.
    assert (found == place) == (not (place / "report.json").is_file() or (place / "report.json").is_symlink())


def test_a_demo_s_answer_sheet_may_be_a_stranger_s(tmp_path: Path) -> None:
    for content in (b"{}", b"[" * 100_000, b'{"seed": 1' + b"0" * 5_000 + b', "traps": []}'):
        (tmp_path / MANIFEST_NAME).write_bytes(content)
        with pytest.raises(CheckpointError, match="no answer sheet of a demo"):
            planted_found(tmp_path, documents.clean())
    (tmp_path / MANIFEST_NAME).unlink()
    (tmp_path / "elsewhere").write_bytes(b"{}")
    (tmp_path / MANIFEST_NAME).symlink_to("elsewhere")
    with pytest.raises(CheckpointError, match="not followed"):
        planted_found(tmp_path, documents.clean())
