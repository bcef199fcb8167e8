"""Files are written whole, and never where a link of a stranger's repository leads."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from llmtrap.errors import OutputError
from llmtrap.report.write import make_folder, write_whole

PRECIOUS = "# precious\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".profile").write_text(PRECIOUS)
    return home / ".profile"


def unharmed(victim: Path) -> bool:
    return victim.read_text() == PRECIOUS and [path.name for path in victim.parent.iterdir()] == [".profile"]


@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("a/b/report.json", ".profile"),
        ("a/b/report.json", "dangling"),
        ("a/b", "."),
        ("a", "."),
    ],
)
def test_no_link_is_followed_below_the_folder_chosen(tmp_path: Path, victim: Path, link: str, to: str) -> None:
    repository = tmp_path / "repository"
    place = repository / link
    place.parent.mkdir(parents=True)
    place.symlink_to(victim.parent / to)
    path = repository / "a" / "b" / "report.json"
    with pytest.raises(OutputError, match="link"):
        write_whole(path, b"x", within=repository)
    assert unharmed(victim)
    if link != "a/b/report.json":
        with pytest.raises(OutputError, match="link"):
            make_folder(path.parent, within=repository)
        assert unharmed(victim)


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_only_a_regular_file_is_replaced_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "report.json"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(OutputError, match="folder" if kind == "folder" else "not a regular file"):
        write_whole(path, b"x", within=tmp_path)


def test_a_path_that_was_typed_is_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "file").symlink_to(tmp_path / "other" / "real.json")
    write_whole(tmp_path / "link" / "a.json", b"1")
    write_whole(tmp_path / "file", b"2")
    write_whole(tmp_path / "link" / "b.json", b"3", within=tmp_path / "link")
    assert {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()} == {
        "a.json": b"1", "real.json": b"2", "b.json": b"3",
    }  # fmt: skip


def test_what_a_killed_run_left_is_removed_and_what_another_holds_is_kept(tmp_path: Path, victim: Path) -> None:
    left, held, other = (
        tmp_path / f".{name}.part" for name in ("r.json.0a1b2c3d", "r.json.00000000", "x.json.00000000")
    )
    for part in (left, held, other):
        part.write_bytes(b"half")
    linked = tmp_path / ".r.json.11111111.part"
    linked.symlink_to(victim)
    with held.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        write_whole(tmp_path / "r.json", b"whole", within=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [held.name, other.name, linked.name, "home", "r.json"]
    )
    assert unharmed(victim)
