"""Watching a folder: half-written checkpoints, deletion under its hands, kill -9 and the same command again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import LLMTRAP, environment, wait_for
from tests.support.processes import run as llmtrap
from tests.support.runs import GROWING, write_run, write_step
from tests.support.small_checkpoint import write_small

from llmtrap.audit import AuditSettings, Measured, RunOptions
from llmtrap.errors import UsageError
from llmtrap.trajectory.find import checkpoints_in, find_checkpoints
from llmtrap.trajectory.follow import Follower, FollowOptions
from llmtrap.trajectory.watching import Audited, Began, LeftOut, Looked, WatchEvent, WatchOptions, watch

ONE = FollowOptions(RunOptions(workers=1), digests=True)
NOW = WatchOptions(interval=0.01, settle=0.0, once=True)
PATIENT = WatchOptions(interval=0.01, settle=0.0)


def follower() -> Follower:
    return Follower("run", AuditSettings(alpha=False), ONE)


def kinds(events: list[WatchEvent]) -> list[tuple[str, str]]:
    told = [event for event in events if isinstance(event, (Audited, LeftOut))]
    return [(type(event).__name__, event.path.name) for event in told]


def test_what_is_there_in_the_order_of_steps(tmp_path: Path) -> None:
    write_run(tmp_path, 2)
    write_step(tmp_path, 3, name="checkpoint-1000")
    (tmp_path / "runs").mkdir()
    (tmp_path / "checkpoint-50.txt").write_text("no weights")
    write_small(tmp_path / "tmp-checkpoint-70", layers=1)
    write_small(tmp_path / "last", layers=1)
    followed = follower()
    events = list(watch(tmp_path, followed, NOW))
    assert kinds(events) == [("Audited", f"checkpoint-{k}") for k in (100, 200, 1000)]
    assert [point.measured for point in followed.points] == [32, 2, 2]


def test_a_half_written_checkpoint_waits_until_it_is_whole(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "made", 1)[0]
    run = tmp_path / "run"
    half = run / "checkpoint-100"
    half.mkdir(parents=True)
    for name in ("config.json", "model-00001-of-00008.safetensors"):
        shutil.copy(whole / name, half)
    cut = (whole / "model-00002-of-00008.safetensors").read_bytes()
    (half / "model-00002-of-00008.safetensors").write_bytes(cut[:70_000])
    followed = follower()
    events = watch(run, followed, PATIENT)
    first = next(events)
    assert isinstance(first, LeftOut)
    assert first.for_now
    assert isinstance(next(events), Looked)
    shutil.copytree(whole, half, dirs_exist_ok=True)
    rest = [next(event for event in events if isinstance(event, Audited))]
    events.close()
    assert rest[0].path.name == "checkpoint-100"
    assert followed.points[0].summary.matrices == 32
    assert not followed.points[0].coverage.failed


def test_one_that_still_grows_is_not_opened(tmp_path: Path) -> None:
    path = write_run(tmp_path, 1)[0]
    events = watch(tmp_path, follower(), WatchOptions(interval=0.01, settle=0.5))
    with (path / "optimizer.pt").open("wb", buffering=0) as file:
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            file.write(b"state")
            event = next(events)
            assert isinstance(event, Looked)
            assert event.waiting == 1
    assert isinstance(next(event for event in events if not isinstance(event, Looked)), Began)
    events.close()


@pytest.mark.parametrize("when", ["before", "while"])
def test_deletion_under_its_hands_leaves_one_out_and_goes_on(tmp_path: Path, when: str) -> None:
    paths = write_run(tmp_path, 3)
    followed = follower()
    events: list[WatchEvent] = []
    for event in watch(tmp_path, followed, NOW):
        events.append(event)
        audited = len(followed.points)
        gone = isinstance(event, Audited) if when == "before" else isinstance(event, (Began, Measured)) and audited == 1
        if gone and audited == 1 and paths[1].exists():
            shutil.rmtree(paths[1])
    expected = [("Audited", "checkpoint-100"), ("Audited", "checkpoint-300")]
    if when == "while":
        expected.insert(1, ("LeftOut", "checkpoint-200"))
    assert kinds(events) == expected
    assert [point.name for point in followed.points] == ["checkpoint-100", "checkpoint-300"]
    assert [point.measured for point in followed.points] == [32, 2]


def test_the_one_before_may_be_gone_since_its_digests_are_kept(tmp_path: Path) -> None:
    paths = write_run(tmp_path, 1)
    followed = follower()
    for event in watch(tmp_path, followed, PATIENT):
        if isinstance(event, Audited) and event.path == paths[0]:
            shutil.rmtree(paths[0])
            write_step(tmp_path, 2)
        elif isinstance(event, Audited):
            break
    assert [point.measured for point in followed.points] == [32, 2]


def test_one_that_changes_while_it_is_audited_is_audited_anew(tmp_path: Path) -> None:
    (path,) = write_run(tmp_path, 1)
    followed, changed, told = follower(), False, []
    for event in watch(tmp_path, followed, PATIENT):
        told.append(event)
        if isinstance(event, Measured) and not changed:
            changed = True
            write_step(tmp_path, 5, name=path.name)
        if isinstance(event, Audited):
            break
    assert kinds(told) == [("LeftOut", path.name), ("Audited", path.name)]
    traps = [trap for trap in followed.trajectory.traps if trap.kind == "entry"]
    assert [trap.matrix for trap in traps] == [GROWING]


def test_a_checkpoint_of_an_earlier_step_is_no_later_point(tmp_path: Path) -> None:
    write_step(tmp_path, 3)
    followed = follower()
    list(watch(tmp_path, followed, NOW))
    write_step(tmp_path, 1)
    (event,) = [event for event in watch(tmp_path, followed, NOW) if isinstance(event, LeftOut)]
    assert event.reason == "it comes before checkpoint-300, which is audited already"


@pytest.mark.parametrize("name", ["interval", "settle", "idle"])
@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_nobody_waits_so_long(name: str, seconds: float) -> None:
    with pytest.raises(UsageError, match="must be more than 0"):
        WatchOptions(**{name: seconds})


def test_it_ends_when_nothing_is_new_for_long(tmp_path: Path) -> None:
    events = list(watch(tmp_path, follower(), WatchOptions(interval=0.01, settle=0.0, idle=0.05)))
    assert all(isinstance(event, Looked) for event in events)


def test_a_run_folder_stands_for_its_checkpoints(tmp_path: Path) -> None:
    paths = write_run(tmp_path, 2, layers=6)
    assert checkpoints_in(tmp_path) == paths
    assert [it.name for it in find_checkpoints([str(tmp_path)])] == [path.name for path in paths]
    assert [it.name for it in find_checkpoints([str(paths[1]), str(paths[0])])] == [path.name for path in paths]


# -- the command ---------------------------------------------------------------------------------------------------

QUICK = ("--no-alpha", "--workers", "1", "--settle", "0", "--every", "0.05")


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_command_ends_with_1_at_the_checkpoint_that_violates_the_policy(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 5)
    done = llmtrap("watch", "run", *QUICK, "--once", "--journal", "j", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    place = tmp_path / "llmtrap-reports" / "run"
    assert [point["label"] for point in document(place / "trajectory.json")["points"]] == ["100", "200", "300"]
    assert "checkpoint-300 violates the policy" in done.stderr
    assert f"LT001 {GROWING}" in done.stderr
    assert (place / "trajectory.html").stat().st_size > 100_000
    again = llmtrap("watch", "run", *QUICK, "--once", "--keep-going", "--journal", "j", cwd=tmp_path)
    assert again.returncode == 1, again.stderr  # the trap grows on
    assert [point["label"] for point in document(place / "trajectory.json")["points"]][-1] == "500"
    assert "carrying on after checkpoint-300" in again.stderr


def test_nothing_audited_ends_with_3(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert llmtrap("watch", "run", *QUICK, "--once", cwd=tmp_path).returncode == 3
    assert llmtrap("watch", "nowhere", *QUICK, "--once", cwd=tmp_path).returncode == 2


def test_killed_and_started_again_it_carries_on(tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint, the first deleted meanwhile, a third come: no checkpoint is lost or twice."""
    run, file = tmp_path / "run", tmp_path / "t.json"
    (first,) = write_run(run, 1)
    words = ["watch", "run", *QUICK, "--json", "t.json", "--journal", "j", "--keep-going"]
    process = subprocess.Popen(
        [LLMTRAP, *words], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(file.exists, "the first point", pause=0.05)
        write_step(run, 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.rmtree(first)
    write_step(run, 3)
    again = llmtrap(*words, "--once", cwd=tmp_path)
    assert again.returncode in (0, 1), again.stderr
    found = document(file)
    assert [point["label"] for point in found["points"]] == ["100", "200", "300"]
    assert [point["measured"] for point in found["points"]] == [32, 2, 2]
