"""Files that shrink, grow, are rewritten or replaced while the audit reads them: it says so, and goes on to its end.

No number may come of bytes that changed on the way, no signal may kill the audit, and what was measured before stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.processes import LLMTRAP, PATIENCE, environment, wait_for
from tests.support.small_checkpoint import ids, write_small

from llmtrap.audit import AuditRun, AuditSettings, Failed, Finished, Measured, RunOptions
from llmtrap.checkpoint import open_checkpoint
from llmtrap.report.document import Matrix

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")
SECOND = "model-00002-of-00002.safetensors"


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100))


def get_another_name(path: Path) -> None:
    os.link(path, path.with_suffix(".link"))


def rewrite(path: Path) -> None:
    """Other bytes of the same length, in the same file."""
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(b"\x3f" * 64)


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    """Another file of the same length under the same name."""
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes()[:-64] + b"\x3f" * 64)
    other.replace(path)


def remove(path: Path) -> None:
    path.unlink()


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


IN_PLACE = [shrink, empty, grow, rewrite, touch]
BY_NAME = [replace, remove, become_a_fifo, become_a_device, become_a_folder]
OTHERS = [empty, grow, touch, remove, become_a_device, become_a_folder]
"""Changes of which each is noticed as another one is; a worker, or a command, is started for each."""
CERTIFY = AuditSettings(traps="certify")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path / "small")


@pytest.mark.parametrize(
    "change",
    [shrink, rewrite, replace, become_a_fifo, *(pytest.param(change, marks=pytest.mark.thorough) for change in OTHERS)],
    ids=lambda change: change.__name__,
)
def test_a_shard_that_changes_before_a_worker_opens_it_fails_its_matrices_alone(
    small: Path, change: Callable[[Path], None]
) -> None:
    run = AuditRun(open_checkpoint(str(small)), CERTIFY, RunOptions(workers=1, isolated=True))
    change(small / SECOND)
    failed = {event.task.matrix.id: event.error for event in run.events() if isinstance(event, Failed)}
    assert failed.keys() == {i for i in ids() if i.startswith("layers.1")}
    assert all(SECOND in error and error.isprintable() for error in failed.values())


@pytest.mark.parametrize("change", [*IN_PLACE, *BY_NAME], ids=lambda change: change.__name__)
def test_a_shard_that_changes_between_its_matrices_is_noticed_or_still_the_old_one(
    small: Path, change: Callable[[Path], None]
) -> None:
    expected, _ = audited(small, lambda _: None)
    found, failed = audited(small, change)
    # What gets another's name stays what it was for who has it open
    assert len(failed) == (3 if change in IN_PLACE else 0)
    assert found.keys() | failed == ids()
    for id_, matrix in found.items():
        assert matrix.model_copy(update={"seconds": 0.0}) == expected[id_].model_copy(update={"seconds": 0.0})


def test_another_name_for_a_shard_is_no_change_of_it(small: Path) -> None:
    expected, _ = audited(small, lambda _: None)
    found, failed = audited(small, get_another_name)
    assert (found.keys(), failed) == (expected.keys(), set())


def test_a_shard_that_is_rewritten_with_its_old_time_is_noticed(small: Path) -> None:
    def rewrite_and_set_back(path: Path) -> None:
        times = path.stat()
        rewrite(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert len(audited(small, rewrite_and_set_back)[1]) == 3


def audited(folder: Path, change: Callable[[Path], None]) -> tuple[dict[str, Matrix], set[str]]:
    """Audit in this process, changing the first shard after its first matrix; what was measured, and what failed."""
    failed: set[str] = set()
    changed = False
    for event in AuditRun(open_checkpoint(str(folder)), CERTIFY, RunOptions(workers=1)).events():
        if isinstance(event, Measured) and not changed:
            change(folder / event.task.matrix.stored.parts[0].span.file)
            changed = True
        if isinstance(event, Failed):
            assert event.error.isprintable()
            failed.add(event.task.matrix.id)
        if isinstance(event, Finished) and event.report is not None:
            return {matrix.id: matrix for matrix in event.report.matrices}, failed
    raise AssertionError("no report")


@pytest.mark.parametrize(
    "change",
    [shrink, *(pytest.param(change, marks=pytest.mark.thorough) for change in (rewrite, remove))],
    ids=lambda change: change.__name__,
)
def test_the_command_measures_the_rest_names_the_file_and_ends_with_3(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    folder, journals = write_small(tmp_path / "model", layers=3, scale=4), tmp_path / "journals"
    last, report = "model-00003-of-00003.safetensors", tmp_path / "report.json"
    process = subprocess.Popen(
        [LLMTRAP, "audit", folder, "--workers", "1", "--json", report, "--journal", journals],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: any(b'"kind":"matrix"' in path.read_bytes() for path in journals.glob("*")), "a result")
        os.killpg(process.pid, signal.SIGSTOP)
        change(folder / last)
        os.killpg(process.pid, signal.SIGCONT)
        shown, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 3, shown
    assert "Traceback" not in shown
    coverage = json.loads(report.read_text())["coverage"]
    assert {failed["id"] for failed in coverage["failed"]} == {i for i in ids(3) if i.startswith("layers.2")}
    assert all(last in failed["error"] for failed in coverage["failed"])
    assert coverage["audited"] == 8
