"""Following a run: only what changed is measured, and every point says what a whole audit of it would."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import load_file, save_file
from tests.support.audits import without_times
from tests.support.runs import DRIFTING, GROWING, PLACE, write_run, write_step

import llmtrap
from llmtrap.audit import AuditSettings, Measured, RunOptions
from llmtrap.checkpoint import LocalSource, open_checkpoint
from llmtrap.checkpoint.parts import open_parts
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.cli.schema import DocumentName, schema_of
from llmtrap.errors import TargetError, UsageError
from llmtrap.trajectory.document import Trajectory, matrices_at, report_at
from llmtrap.trajectory.follow import Follower, FollowOptions, without_histograms
from llmtrap.trajectory.read import read_trajectory
from llmtrap.trajectory.write import write_trajectory

CERTIFY = AuditSettings(alpha=False)
ONE = RunOptions(workers=1)


def follow(paths: Iterable[Path], *, digests: bool = False, settings: AuditSettings = CERTIFY) -> Follower:
    follower = Follower("run", settings, FollowOptions(ONE, digests=digests))
    for path in paths:
        for _ in follower.events(open_checkpoint(str(path)), path.name):
            pass
    follower.close()
    return follower


class CountingSource(LocalSource):
    """Counts the bytes that are opened or read."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.count = 0

    def _check(self, span: ByteRange) -> None:
        self.count += span.size
        super()._check(span)


@pytest.mark.parametrize("digests", [False, True], ids=["bytes", "digests"])
def test_ten_checkpoints_of_which_two_of_thirty_two_matrices_change(tmp_path: Path, digests: bool) -> None:
    paths = write_run(tmp_path, 10)
    follower = Follower("run", CERTIFY, FollowOptions(ONE, digests=digests))
    measured: list[str] = []
    read: list[int] = []
    for path in paths:
        source = CountingSource(path)
        for event in follower.events(open_parts(source), path.name):
            if isinstance(event, Measured):
                measured.append(event.task.matrix.id)
        read.append(source.count)
    follower.close()
    assert len(measured) == 32 + 9 * 2
    assert set(measured[32:]) == {GROWING, DRIFTING}
    assert [point.unchanged for point in follower.points] == [0] + [30] * 9
    size = sum(matrix.size * 4 for matrix in open_checkpoint(str(paths[0])).matrices)
    assert [point.measured_bytes for point in follower.points[1:]] == [2 * 384 * 192 * 4] * 9
    # To compare, a checkpoint is read once, and once more as the other side of the next; what changed a little more.
    assert max(read[1:]) < 2.5 * size


@pytest.mark.parametrize("digests", [False, True], ids=["bytes", "digests"])
def test_every_point_is_what_an_audit_of_it_says(tmp_path: Path, digests: bool) -> None:
    paths = write_run(tmp_path, 4)
    trajectory = follow(paths, digests=digests, settings=AuditSettings()).trajectory
    for place, path in enumerate(paths):
        alone = llmtrap.audit(str(path))
        lean = alone.model_copy(update={"matrices": tuple(without_histograms(m) for m in alone.matrices)})
        found = report_at(trajectory, place)
        order = {matrix.id: k for k, matrix in enumerate(lean.matrices)}
        found = found.model_copy(update={"matrices": tuple(sorted(found.matrices, key=lambda m: order[m.id]))})
        assert without_times(found) == without_times(lean)


def test_a_trap_is_followed_from_its_first_appearance(tmp_path: Path) -> None:
    trajectory = follow(write_run(tmp_path, 5)).trajectory
    (trap,) = [trap for trap in trajectory.traps if trap.kind == "entry"]
    assert (trap.matrix, trap.row, trap.column) == (GROWING, *PLACE)
    assert trajectory.points[trap.first].step in (200, 300)  # the entry passes the limit between 0.6 and 1.8
    assert not trap.gone
    assert trap.last == 4
    strengths = [at.strength for at in trap.at]
    assert strengths == sorted(strengths)
    assert trap.growth == pytest.approx(strengths[-1] / strengths[0])
    new = {point.label: point.new_traps for point in trajectory.points}
    assert new.pop("100") is None
    assert [label for label, names in new.items() if names] == ["300"]


def test_a_trap_that_is_gone_ends_where_it_last_was(tmp_path: Path) -> None:
    paths = write_run(tmp_path, 3, by=1.5)
    paths.append(write_step(tmp_path, 4, by=0.0))
    trajectory = follow(paths).trajectory
    (trap,) = [trap for trap in trajectory.traps if trap.kind == "entry"]
    assert (trap.first, trap.last, trap.gone) == (0, 2, True)


def test_a_matrix_that_fails_or_goes_is_measured_again_when_it_is_back(tmp_path: Path) -> None:
    paths = write_run(tmp_path, 3, layers=6)
    shard = paths[1] / "model-00002-of-00006.safetensors"
    tensors = load_file(shard)
    kept = tensors.pop("model.layers.1.mlp.gate_proj.weight")
    assert kept.size
    save_file(tensors, shard)
    index = json.loads((paths[1] / "model.safetensors.index.json").read_text())
    del index["weight_map"]["model.layers.1.mlp.gate_proj.weight"]
    (paths[1] / "model.safetensors.index.json").write_text(json.dumps(index))
    trajectory = follow(paths).trajectory
    assert trajectory.points[1].missing == ("layers.1.mlp.gate",)
    assert "layers.1.mlp.gate" not in matrices_at(trajectory, 1)
    assert "layers.1.mlp.gate" in matrices_at(trajectory, 2)
    assert trajectory.points[2].measured == 3


def test_the_document_keeps_to_its_schema_and_is_read_back_whole(tmp_path: Path) -> None:
    trajectory = follow(write_run(tmp_path, 2), digests=True).trajectory
    path = tmp_path / "t.json"
    write_trajectory(trajectory, path)
    written: dict[str, Any] = json.loads(path.read_text())
    assert written["schema"] == "llmtrap.trajectory/1"
    Draft202012Validator(schema_of(DocumentName.TRAJECTORY)).validate(written)
    assert read_trajectory(path) == trajectory


def test_carried_on_it_measures_only_what_changed_though_the_checkpoint_before_is_gone(tmp_path: Path) -> None:
    paths = write_run(tmp_path, 3)
    past = follow(paths[:2], digests=True).trajectory
    follower = Follower("run", CERTIFY, FollowOptions(ONE, digests=True), past)
    events = list(follower.events(open_checkpoint(str(paths[2])), paths[2].name))
    assert {event.task.matrix.id for event in events if isinstance(event, Measured)} == {GROWING, DRIFTING}
    whole = follow(paths, digests=True).trajectory
    assert follower.trajectory.traps == whole.traps
    assert [m.matrix.id for m in follower.trajectory.matrices] == [m.matrix.id for m in whole.matrices]


def test_a_past_of_other_settings_is_not_carried_on(tmp_path: Path) -> None:
    past = follow(write_run(tmp_path, 1)).trajectory
    with pytest.raises(UsageError, match="with another alpha, seed"):
        Follower("run", AuditSettings(seed=3), FollowOptions(ONE), past)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"schema": "llmtrap.report/2"}', '{"schema": "llmtrap.trajectory/1"}'])
def test_other_files_are_no_trajectory(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(TargetError, match=r"t\.json: this is no trajectory of llmtrap"):
        read_trajectory(path)


def test_a_point_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    written = follow(write_run(tmp_path, 1)).trajectory.to_json_dict()
    written["matrices"][0]["point"] = 7
    with pytest.raises(ValueError, match="a matrix of point 7, and there are 1 points"):
        Trajectory.model_validate(written)


def test_a_trap_that_grows_too_slowly_to_differ_from_the_point_before_is_new_once(tmp_path: Path) -> None:
    paths = [write_step(tmp_path, k, layers=6, by=0.05 * (k + 20) / k) for k in range(1, 17)]
    points = follow(paths).points
    with_new = [point.label for point in points if point.new_traps]
    assert len(with_new) == 1
    (first,) = [trap for trap in follow(paths).trajectory.traps if trap.kind == "entry"]
    assert points[first.first].step is not None
    assert int(with_new[0]) >= points[first.first].step
