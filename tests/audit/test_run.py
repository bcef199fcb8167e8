"""A run: its events, its report, what it remembers, and what it does about a matrix that fails."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.support.small_checkpoint import ids, write_small

import llmtrap
from llmtrap.audit import (
    AuditRun,
    AuditSettings,
    Event,
    Failed,
    Finished,
    Journal,
    Measured,
    Part,
    RunOptions,
    Started,
    journal_for,
)
from llmtrap.checkpoint import open_checkpoint
from llmtrap.report.document import Report

Timeless = Callable[[Report], dict[str, Any]]
CERTIFY = AuditSettings(traps="certify")
ONE = RunOptions(workers=1)


def events_of(
    folder: Path, settings: AuditSettings = CERTIFY, options: RunOptions = ONE, journal: Path | None = None
) -> list[Event]:
    checkpoint = open_checkpoint(str(folder))
    kept = journal_for(checkpoint, journal) if journal is not None else None
    try:
        return list(AuditRun(checkpoint, settings, options, kept).events())
    finally:
        checkpoint.source.close()


def report_of(events: list[Event]) -> Report:
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.report is not None
    return last.report


def measured(events: list[Event]) -> set[str]:
    return {event.task.matrix.id for event in events if isinstance(event, Measured)}


def change(shard: Path, tensor: str, entry: tuple[int, int], value: float, dtype: type = np.float32) -> None:
    """Write a shard again with one entry changed."""
    tensors = load_file(shard)
    tensors[tensor] = tensors[tensor].astype(dtype)
    tensors[tensor][entry] = value
    save_file(tensors, shard)


# -- events and report ----------------------------------------------------------------------------------------------


def test_the_events_come_in_order_and_the_report_last(small: Path) -> None:
    events = events_of(small)

    started, *between, finished = events
    assert isinstance(started, Started)
    assert (started.todo, started.remembered) == (8, 0)
    assert started.remaining_bytes == started.plan.bytes
    assert math.isclose(started.remaining_core_seconds, started.plan.core_seconds)
    assert [type(event) for event in between] == [Measured] * 8
    assert [e.task for e in between if isinstance(e, Measured)] == [started.plan.tasks[k] for k in started.plan.order]
    assert isinstance(finished, Finished)


def test_the_report_is_in_the_order_of_the_plan_and_counts_everything(small: Path) -> None:
    events = events_of(small)
    report = report_of(events)

    started = events[0]
    assert isinstance(started, Started)
    assert [m.id for m in report.matrices] == [task.matrix.id for task in started.plan.tasks]
    assert (report.coverage.planned, report.coverage.audited, report.coverage.failed) == (8, 8, ())
    assert [s.tensor for s in report.coverage.skipped] == [
        f"model.layers.{layer}.input_layernorm.weight" for layer in (0, 1)
    ]
    assert [(f.path, f.bytes) for f in report.target.files] == [
        (path.name, path.stat().st_size) for path in sorted(small.glob("*.safetensors"))
    ]


def test_two_runs_and_two_workers_give_equal_documents(small: Path, timeless: Timeless) -> None:
    measure = AuditSettings(traps="measure", shuffles=2)
    first, again = (report_of(events_of(small, measure)) for _ in range(2))
    two = report_of(events_of(small, measure, RunOptions(workers=2)))

    assert timeless(first) == timeless(again) == timeless(two)


def test_a_worker_of_its_own_gives_the_same_document(small: Path, timeless: Timeless) -> None:
    here, isolated = (report_of(events_of(small, options=o)) for o in (ONE, replace(ONE, isolated=True)))

    assert timeless(here) == timeless(isolated)
    # Counted once each: a worker more is a process more
    assert isolated.summary.peak_rss_bytes > here.summary.peak_rss_bytes


def test_the_public_function_is_the_same_run(small: Path, timeless: Timeless) -> None:
    assert timeless(llmtrap.audit(str(small), CERTIFY)) == timeless(report_of(events_of(small)))


def test_another_seed_gives_another_shuffle(small: Path) -> None:
    tops = [
        [
            m.traps.top_z
            for m in llmtrap.audit(str(small), AuditSettings(traps="measure", seed=seed)).matrices
            if m.traps
        ]
        for seed in (0, 1)
    ]
    assert all(a != b for a, b in zip(*tops, strict=True))


# -- what cannot be measured ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolated", [False, True])
def test_a_file_cut_short_after_the_plan_fails_its_matrices_and_no_other(small: Path, isolated: bool) -> None:
    checkpoint = open_checkpoint(str(small))
    run = AuditRun(checkpoint, CERTIFY, replace(ONE, isolated=isolated))
    shard = small / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size // 2)
    events = list(run.events())

    failed = {event.task.matrix.id: event.error for event in events if isinstance(event, Failed)}
    assert failed.keys() == {i for i in ids() if i.startswith("layers.1")}
    assert all(shard.name in error for error in failed.values())
    report = report_of(events)
    assert {f.id: f.error for f in report.coverage.failed} == failed
    assert (report.coverage.planned, report.coverage.audited) == (8, 4)


def test_a_failed_matrix_is_not_remembered(small: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(small))
    run = AuditRun(checkpoint, CERTIFY, ONE, journal_for(checkpoint, tmp_path / "j"))
    shard = small / "model-00002-of-00002.safetensors"
    whole, status = shard.read_bytes(), shard.stat()
    os.truncate(shard, 1000)
    assert len(measured(list(run.events()))) == 4

    shard.write_bytes(whole)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    events = events_of(small, journal=tmp_path / "j")
    assert measured(events) == {i for i in ids() if i.startswith("layers.1")}
    assert report_of(events).coverage.failed == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_entries_that_are_not_finite_are_found_where_they_are(small: Path, value: float) -> None:
    change(small / "model-00001-of-00002.safetensors", "model.layers.0.mlp.down_proj.weight", (5, 77), value)
    report = report_of(events_of(small))

    found = {m.id: m.non_finite for m in report.matrices if m.non_finite is not None}
    assert found.keys() == {"layers.0.mlp.down"}
    bad = found["layers.0.mlp.down"]
    assert bad is not None
    assert (bad.row, bad.column) == (5, 77)
    assert (bad.nan, bad.inf) == ((1, 0) if math.isnan(value) else (0, 1))
    assert report.summary.non_finite == 1


def test_numbers_that_leave_float64_fail_their_matrix(small: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    change(small / "model-00001-of-00002.safetensors", name, (0, 0), 1e200, np.float64)
    report = report_of(events_of(small))

    (failed,) = report.coverage.failed
    assert (failed.id, failed.tensor) == ("layers.0.mlp.down", name)
    assert "float64" in failed.error


# -- what is remembered ---------------------------------------------------------------------------------------------


def test_a_second_run_measures_nothing(small: Path, tmp_path: Path, timeless: Timeless) -> None:
    first, second = (events_of(small, journal=tmp_path / "j") for _ in range(2))

    assert [type(event) for event in second] == [Started, Finished]
    started = second[0]
    assert isinstance(started, Started)
    assert (started.todo, started.remembered, started.remaining_bytes) == (0, 8, 0)
    assert timeless(report_of(first)) == timeless(report_of(second))


def test_a_run_that_is_stopped_has_kept_every_event_it_gave(small: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(small))
    journal = journal_for(checkpoint, tmp_path / "j")
    events = AuditRun(checkpoint, CERTIFY, ONE, journal).events()
    seen = [next(events) for _ in range(4)]
    events.close()

    done = measured(seen)
    assert len(done) == 3
    rest = events_of(small, journal=tmp_path / "j")
    assert measured(rest) == ids() - done
    assert {m.id for m in report_of(rest).matrices} == ids()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_run_leaves_no_process(small: Path, workers: int) -> None:
    checkpoint = open_checkpoint(str(small))
    before = _children().keys()
    events = AuditRun(checkpoint, CERTIFY, RunOptions(workers=workers, isolated=True)).events()
    next(events)
    next(events)
    started = _children().keys() - before
    assert len(started) == workers
    events.close()

    assert _children().keys() & started == set()


def _children() -> dict[int, str]:
    """Command lines of this process's children that run."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found[int(status.parent.name)] = (status.parent / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_changed_bytes_are_measured_again(small: Path, tmp_path: Path) -> None:
    before = report_of(events_of(small, journal=tmp_path / "j"))
    change(small / "model-00002-of-00002.safetensors", "model.layers.1.mlp.gate_proj.weight", (0, 0), 9.0)
    events = events_of(small, journal=tmp_path / "j")

    assert measured(events) == {i for i in ids() if i.startswith("layers.1")}
    after = report_of(events)
    old, new = ({m.id: m.spectrum for m in r.matrices}["layers.1.mlp.gate"] for r in (before, after))
    assert old is not None
    assert new is not None
    assert old.spectral_norm < 9 <= new.spectral_norm


@pytest.mark.parametrize("settings", [replace(CERTIFY, alpha=False), replace(CERTIFY, seed=3), AuditSettings()])
def test_a_changed_setting_is_measured_again_and_both_are_kept(
    small: Path, tmp_path: Path, settings: AuditSettings
) -> None:
    events_of(small, journal=tmp_path / "j")
    assert measured(events_of(small, settings, journal=tmp_path / "j")) == ids()
    for known in (CERTIFY, settings):
        assert measured(events_of(small, known, journal=tmp_path / "j")) == set()


def test_more_matrices_use_what_is_there(small: Path, tmp_path: Path) -> None:
    events_of(small, replace(CERTIFY, include=("layers.0.*",)), journal=tmp_path / "j")

    assert measured(events_of(small, journal=tmp_path / "j")) == {i for i in ids() if i.startswith("layers.1")}


def test_two_targets_of_one_name_do_not_share_a_journal(tmp_path: Path) -> None:
    paths = []
    for parent in ("a", "b"):
        checkpoint = open_checkpoint(str(write_small(tmp_path / parent / "model")))
        paths.append(journal_for(checkpoint, tmp_path).path)
    assert paths[0] != paths[1]


def test_one_target_has_one_journal_however_it_is_written(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    paths = {
        journal_for(open_checkpoint(name), tmp_path).path
        for name in (str(small), small.name, f"./{small.name}/", ".//small")
    }
    assert len(paths) == 1


def test_a_part_gives_no_report_but_keeps_its_share(small: Path, tmp_path: Path) -> None:
    events = events_of(small, options=replace(ONE, part=Part(1, 3)), journal=tmp_path / "j")

    last = events[-1]
    assert isinstance(last, Finished)
    assert last.report is None
    started = events[0]
    assert isinstance(started, Started)
    assert started.todo == 3
    assert measured(events_of(small, journal=tmp_path / "j")) == ids() - measured(events)


def test_a_damaged_record_is_measured_again(small: Path, tmp_path: Path) -> None:
    events_of(small, journal=tmp_path / "j")
    journal = Journal(next((tmp_path / "j").glob("*.jsonl")))
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"F32"', b'"F64"')
    journal.path.write_bytes(b"".join(lines))

    assert len(measured(events_of(small, journal=tmp_path / "j"))) == 1
    assert measured(events_of(small, journal=tmp_path / "j")) == set()
