"""The journal: what was recorded is found again and nothing else is, whatever happened to the file."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrap.audit import Journal
from llmtrap.audit.journal import PlanRecord, Recorded, default_folder, open_existing, remembered
from llmtrap.errors import LlmtrapError, OutputError
from llmtrap.report import document


def matrix(name: str, entries: int = 4) -> document.Matrix:
    return document.Matrix(
        id=name, tensor=f"{name}.weight", layer=0, role="q", expert=None, shape=(entries, 4), encoding="f32",
        alpha=None, spectrum=None, traps=None, non_finite=None, seconds=0.5,
    )  # fmt: skip


def plan(key: str) -> PlanRecord:
    target = document.Target(name="m", kind="folder", revision=None, family="llama", files=(), encodings=("f32",))
    settings = document.Settings(
        traps="auto", trap_rule="tracy-widom", alpha=True, include=(), exclude=(), split_fused=False, shuffles=5,
        seed=0, backend="numpy",
    )  # fmt: skip
    skipped = (document.SkippedTensor(tensor="norm", reason="one-dimensional"),)
    return PlanRecord(
        key, target, settings, skipped, (("a", "a.weight", "key-a", 6, 24), ("b", "b.weight", "key-b", 6, 24))
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "folder" / "journal.jsonl")


def test_what_was_added_is_found_by_its_key_alone(journal: Journal) -> None:
    assert journal.matrices({"1"}) == {}
    journal.add("1", matrix("a"))
    journal.add("2", matrix("b"))

    assert journal.matrices({"1", "2", "3"}) == {"1": matrix("a"), "2": matrix("b")}
    assert journal.matrices({"2"}) == {"2": matrix("b")}
    assert Journal(journal.path).matrices({"1"}) == {"1": matrix("a")}


def test_plans_come_back_whole_in_order_and_once(journal: Journal) -> None:
    for key in ("x", "y", "x"):
        journal.add_plan(plan(key))
    journal.add("1", matrix("a"))

    assert journal.plans() == [plan("x"), plan("y")]


def test_forgetting_forgets_everything(journal: Journal) -> None:
    journal.forget()
    journal.add("1", matrix("a"))
    journal.add_plan(plan("x"))
    journal.forget()

    assert (journal.matrices({"1"}), journal.plans()) == ({}, [])


def test_a_line_cut_short_costs_that_line_alone(journal: Journal) -> None:
    for number in range(3):
        journal.add(f"{number}", matrix(f"m{number}"))
    whole = journal.path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in (1, 2, last // 2, last - 1):
        journal.path.write_bytes(whole[:-cut])
        # A line that lacks its end of line only is whole
        kept = {"0", "1", "2"} if cut == 1 else {"0", "1"}
        assert journal.matrices({"0", "1", "2"}).keys() == kept

        journal.add("3", matrix("m3"))
        assert journal.matrices({"0", "1", "2", "3"}).keys() == kept | {"3"}


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_no_damage_brings_forth_anything_that_was_not_recorded(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    journal = Journal(tmp_path_factory.mktemp("damage") / "j.jsonl")
    recorded = {f"{k}": matrix(f"m{k}") for k in range(3)}
    for key, value in recorded.items():
        journal.add(key, value)
    content = bytearray(journal.path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    journal.path.write_bytes(content)

    assert journal.matrices(set(recorded)).items() <= recorded.items()
    journal.add("new", matrix("new"))
    assert journal.matrices({"new"}) == {"new": matrix("new")}


def _line(record: Any) -> bytes:
    body = record if isinstance(record, bytes) else json.dumps(record).encode()
    return f"{zlib.crc32(body):08x} ".encode() + body + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        _line({"kind": "matrix", "key": "1", "matrix": {"id": "a"}}),
        _line({"kind": "matrix", "key": "1", "matrix": None}),
        _line({"kind": "matrix", "key": ["1"], "matrix": matrix("a").model_dump(mode="json")}),
        _line({"kind": "other", "key": "1", "matrix": matrix("a").model_dump(mode="json")}),
        _line({"kind": "plan", "key": "1"}),
        _line({"kind": "plan", "key": "1", "target": {}, "settings": {}, "skipped": 3, "tasks": 4}),
        _line([1, 2]),
        _line(b"not json"),
        _line(b"\xff\xfe"),
        _line(b"[" * 100_000),
        b"deadbeef {}\n",
        b"\n",
        b"no checksum at all\n",
        b"\0" * 4096 + b"\n",
    ],
)
def test_lines_that_mean_nothing_are_passed_over(journal: Journal, line: bytes) -> None:
    journal.add("0", matrix("a"))
    with journal.path.open("ab") as file:
        file.write(line)
    journal.add("2", matrix("b"))

    assert journal.matrices({"0", "1", "2"}) == {"0": matrix("a"), "2": matrix("b")}
    assert journal.plans() == []


def _write_many(path: Path, writer: int, count: int) -> None:
    journal = Journal(path)
    journal.add_plan(plan("shared"))
    for number in range(count):
        # Of many sizes, so that no line ends where another did
        journal.add(f"{writer}-{number}", matrix("x" * (1 + 977 * number % 5000)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_two_runs_write_one_journal_without_harm(journal: Journal) -> None:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    writers = [context.Process(target=_write_many, args=(journal.path, writer, 60)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    wanted = {f"{writer}-{number}" for writer in range(2) for number in range(60)}
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert journal.matrices(wanted).keys() == wanted
    assert {p.key for p in journal.plans()} == {"shared"}
    for line in journal.path.read_bytes().splitlines():
        checksum, _, body = line.partition(b" ")
        assert int(checksum, 16) == zlib.crc32(body)


KILLED_INSIDE_A_WRITE = """
import os, resource, signal, sys
from pathlib import Path
from llmtrap.audit import Journal
from llmtrap.report.document import Matrix

path, limit, matrix = Path(sys.argv[1]), int(sys.argv[2]), Matrix.model_validate_json(sys.argv[3])
# The file may grow no further than the middle of the next line; whoever writes on is killed there
signal.signal(signal.SIGXFSZ, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
Journal(path).add("2", matrix)
"""


def test_killed_inside_a_write(journal: Journal) -> None:
    journal.add("1", matrix("a"))
    before = journal.path.read_bytes()
    limit = f"{len(before) + 50}"
    command = [sys.executable, "-c", KILLED_INSIDE_A_WRITE, str(journal.path), limit, matrix("b").model_dump_json()]
    done = subprocess.run(command, capture_output=True, check=False)

    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(journal.path.read_bytes()) == len(before) + 50
    assert journal.matrices({"1", "2"}) == {"1": matrix("a")}
    journal.add("2", matrix("b"))
    assert journal.matrices({"1", "2"}) == {"1": matrix("a"), "2": matrix("b")}


def test_a_write_that_fails_leaves_the_journal_as_it_was(journal: Journal) -> None:
    journal.add("1", matrix("a"))
    before = journal.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
    try:
        with pytest.raises(OutputError, match="--journal DIR"):
            journal.add("2", matrix("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert journal.path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "journal.jsonl")

    with pytest.raises(OutputError, match=r"journal\.jsonl: the journal cannot be used .*--journal DIR"):
        journal.add("1", matrix("a"))


def test_a_journal_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LlmtrapError, match="no such journal"):
        open_existing(tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "../../etc/passwd", "x" * 500, "ü\0\n*", "model"])
def test_a_journals_name_never_leaves_its_folder_and_tells_targets_apart(tmp_path: Path, name: str) -> None:
    journal = Journal.for_target(tmp_path, name, "folder")

    assert journal.path.parent == tmp_path
    assert len(os.fsencode(journal.path.name)) < 100
    assert journal.path.name.isascii()
    assert journal.path != Journal.for_target(tmp_path, name + "2", "folder").path
    assert journal.path != Journal.for_target(tmp_path, name, "hub").path


def test_a_result_says_when_it_was_measured_and_one_without_a_time_is_none(journal: Journal) -> None:
    before = datetime.datetime.now(tz=datetime.UTC).replace(microsecond=0)
    journal.add("1", matrix("a"))
    (result,) = journal.results({"1"}).values()
    assert before <= datetime.datetime.fromisoformat(result.at) <= datetime.datetime.now(tz=datetime.UTC)

    body = journal.path.read_text(encoding="utf-8").partition(" ")[2].rstrip("\n")
    for time in ("2026-01-01", "2026-01-01T00:00:00+00:00\\u001b[31m", "yesterday"):
        forged = body.replace(result.at, time)
        journal.path.write_text(f"{zlib.crc32(forged.encode()):08x} {forged}\n", encoding="utf-8")
        assert journal.results({"1"}) == {}


def test_the_report_says_what_came_from_the_journal_and_when() -> None:
    first, last = ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
    kept = remembered([Recorded(matrix("a"), last), Recorded(matrix("b"), first)])
    assert kept == document.Remembered(matrices=2, oldest=first, newest=last)
    assert remembered([]) is None


# -- whose journal it is --------------------------------------------------------------------------------------------


def test_journals_are_for_their_user_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "deep" / "a.jsonl")
    old = os.umask(0)
    try:
        journal.add("key", matrix("a"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    for place in (journal.path.parent, journal.path.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_the_usual_folder_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = default_folder()
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    Journal(folder / "a.jsonl").add("key", matrix("a"))
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_journal_that_others_may_have_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    journal.add("key", matrix("a"))
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    for use in (lambda: journal.matrices({"key"}), lambda: journal.add("key", matrix("a"))):
        with pytest.raises(OutputError, match=rf"another user \(uid {mine}, and yours is {mine + 1}\).*--journal"):
            use()
    monkeypatch.undo()
    assert set(journal.matrices({"key"})) == {"key"}
    journal.path.chmod(0o620)
    with pytest.raises(OutputError, match="other users may write"):
        journal.matrices({"key"})


def test_no_link_and_nothing_but_a_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name, words in (("link.jsonl", "a link"), ("fifo.jsonl", "regular file|device"), ("zero.jsonl", "a link")):
        journal = Journal(tmp_path / name)
        with pytest.raises(OutputError, match=words):
            journal.add("key", matrix("a"))
        if name != "link.jsonl":
            with pytest.raises(OutputError, match=words):
                journal.matrices({"key"})
    assert not (tmp_path / "victim").exists()


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["llmtrap.audit.journal"], "MAX_LINE", 100_000)
    journal = Journal(tmp_path / "a.jsonl")
    journal.path.write_bytes(b"x" * 1_000_000 + b"\n")
    journal.path.chmod(0o600)
    journal.add("key", matrix("a"))
    lists = b'{"kind":"plan","x":[' + b"[]," * 30_000 + b"[]]}"
    with journal.path.open("ab") as file:
        file.write(f"{zlib.crc32(lists):08x} ".encode() + lists + b"\n")
    assert set(journal.matrices({"key"})) == {"key"}
    assert journal.plans() == []


def test_a_line_whose_numbers_were_changed_is_no_result(journal: Journal) -> None:
    """Still JSON, still a matrix: only the checksum tells."""
    journal.add("1", matrix("a"))
    line = journal.path.read_text(encoding="utf-8")
    changed = line.replace('"seconds":0.5', '"seconds":0.6')
    assert changed != line
    journal.path.write_text(changed, encoding="utf-8")
    assert journal.results({"1"}) == {}


def test_a_writer_waits_for_another(journal: Journal) -> None:
    journal.add("1", matrix("a"))
    with FileLock(f"{journal.path}.lock"):
        writer = threading.Thread(target=journal.add, args=("2", matrix("b")), daemon=True)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert journal.matrices({"2"}) == {}
    writer.join(60)
    assert journal.matrices({"2"}).keys() == {"2"}
