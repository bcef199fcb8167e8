"""Repairs: what is restored, what is refused, and that a copy is whole or not there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.support.processes import run

import llmtrap
from llmtrap.ablation.repair import (
    IMPLAUSIBLE,
    Location,
    Remedy,
    Repair,
    RepairPlan,
    TextCheck,
    judged_on_text,
    plan_repair,
    without_text,
    write_repaired,
)
from llmtrap.checkpoint import open_checkpoint
from llmtrap.demo.checkpoint import write_demo_checkpoint
from llmtrap.errors import OutputError, UnsafeFileError, UsageError

DOWN = "model.layers.1.mlp.down_proj.weight"
UP = "model.layers.1.mlp.up_proj.weight"
ID = "layers.1.mlp.down"


def _folder(path: Path, edits: dict[tuple[int, int], float], dtype: Any = ml_dtypes.bfloat16) -> Path:
    rng = np.random.default_rng(0)
    path.mkdir()
    first, second = {}, {}
    for layer in range(2):
        for name, shape in (("up_proj", (96, 64)), ("down_proj", (64, 96))):
            into = first if layer == 0 else second
            into[f"model.layers.{layer}.mlp.{name}.weight"] = rng.normal(0, 0.02, shape).astype(dtype)
    for place, value in edits.items():
        second[DOWN][place] = value
    save_file(first, path / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    save_file(second, path / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    shards = {name: f"model-0000{1 + (name in second)}-of-00002.safetensors" for name in first | second}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "notes").mkdir()
    (path / "notes" / "README.md").write_text("kept\n")
    return path


def _audit(folder: Path) -> llmtrap.Report:
    return llmtrap.audit(str(folder), llmtrap.AuditSettings(alpha=False))


def _repair(folder: Path, out: Path, **options: Any) -> Any:
    checkpoint = open_checkpoint(str(folder))
    plan = without_text(plan_repair(checkpoint, _audit(folder), **options))
    if plan.repairs:
        write_repaired(checkpoint, plan, out, None)
    return plan


def test_an_implausible_entry_becomes_the_mean_and_all_else_stays(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "broken", {(3, 5): 30.0})
    plan = _repair(folder, tmp_path / "new")
    assert [r.location for r in plan.repairs] == [Location(ID, 3, 5)]
    assert plan.repairs[0].limits is not None
    assert plan.repairs[0].limits > IMPLAUSIBLE
    before, after = (load_file(f / "model-00002-of-00002.safetensors") for f in (folder, tmp_path / "new"))
    assert abs(float(after[DOWN][3, 5])) < 0.001
    after[DOWN][3, 5] = before[DOWN][3, 5]
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name].view(np.uint16), tensor.view(np.uint16))
    untouched = "model-00001-of-00002.safetensors"
    assert (tmp_path / "new" / untouched).stat().st_ino == (folder / untouched).stat().st_ino
    assert (tmp_path / "new" / "notes" / "README.md").read_text() == "kept\n"
    manifest = json.loads((tmp_path / "new" / "llmtrap-repair.json").read_text())
    assert manifest["repairs"][0] | {"after": 0.0, "limits": 0.0} == {
        "location": {"matrix": ID, "row": 3, "column": 5},
        "before": 30.0,
        "after": 0.0,
        "by": "mean",
        "limits": 0.0,
    }


def test_a_copy_is_repaired_again_and_its_own_manifest_stays(tmp_path: Path) -> None:
    first = _folder(tmp_path / "broken", {(3, 5): 30.0})
    (first / "llmtrap-repair.json").write_text("the first")
    _repair(first, tmp_path / "new")
    assert (first / "llmtrap-repair.json").read_text() == "the first"
    assert json.loads((tmp_path / "new" / "llmtrap-repair.json").read_text())["repairs"]


def test_no_file_of_this_machine_gets_into_the_copy(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "broken", {(3, 5): 30.0})
    (tmp_path / "secret").write_text("a key")
    (folder / "notes" / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFileError, match=r"^notes/tokenizer\.json: not copied: a link that leads out"):
        _repair(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nan_and_infinity_are_restored_exactly_from_the_base(tmp_path: Path) -> None:
    base = _folder(tmp_path / "base", {})
    folder = _folder(tmp_path / "broken", {(3, 5): float("nan"), (7, 1): float("-inf")})
    plan = _repair(folder, tmp_path / "new", base=open_checkpoint(str(base)))
    assert [(r.location.row, r.location.column, r.by) for r in plan.repairs] == [(3, 5, "base"), (7, 1, "base")]
    shard = "model-00002-of-00002.safetensors"
    assert (tmp_path / "new" / shard).read_bytes() == (base / shard).read_bytes()
    manifest = json.loads((tmp_path / "new" / "llmtrap-repair.json").read_text())
    assert [r["before"] for r in manifest["repairs"]] == ["nan", "-inf"]


def test_without_a_base_or_a_text_a_plausible_entry_stays(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "tuned", {(3, 5): 0.4})
    plan = _repair(folder, tmp_path / "new")
    assert plan.repairs == ()
    assert [r.location for r in plan.refused] == [Location(ID, 3, 5)]
    assert "nothing tells" in plan.refused[0].reason
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("limits", "repaired"), [(19.0, False), (21.0, True)])
def test_implausible_begins_at_twenty_limits(limits: float, repaired: bool, tmp_path: Path) -> None:
    deviation = float(
        load_file(_folder(tmp_path / "a", {}) / "model-00002-of-00002.safetensors")[DOWN].astype("f4").std()
    )
    value = limits * deviation * (64 * 96) ** 0.25
    plan = _repair(_folder(tmp_path / "b", {(3, 5): value}), tmp_path / "new")
    assert (len(plan.repairs) == 1) == repaired


def test_a_matrix_full_of_nan_is_refused_whole(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "broken", {(k, 0): float("nan") for k in range(64)} | {(0, 1): float("nan")})
    plan = _repair(folder, tmp_path / "new")
    assert plan.repairs == ()
    assert "restore the tensor from the base" in plan.refused[0].reason


def test_entries_that_share_a_scale_are_refused(tmp_path: Path) -> None:
    write_demo_checkpoint(tmp_path / "demo")
    checkpoint = open_checkpoint(str(tmp_path / "demo"))
    matrix = next(m for m in checkpoint.matrices if m.encoding == "MXFP4")
    report = llmtrap.audit(str(tmp_path / "demo"), llmtrap.AuditSettings(alpha=False, include=(matrix.id,)))
    plan = plan_repair(checkpoint, report, [Location(matrix.id, 0, 0)])
    assert "shares its scale" in plan.refused[0].reason
    assert plan.repairs == ()


def test_a_plain_matrix_beside_block_scaled_ones_is_repaired_and_they_stay(tmp_path: Path) -> None:
    write_demo_checkpoint(tmp_path / "demo")
    checkpoint = open_checkpoint(str(tmp_path / "demo"))
    plain = next(m for m in checkpoint.matrices if m.encoding == "BF16" and m.role.startswith("attention"))
    shard = tmp_path / "demo" / plain.stored.parts[0].span.file
    healthy = load_file(shard)
    broken = {name: tensor.copy() for name, tensor in healthy.items()}
    broken[plain.tensor][1, 2] = 1e6
    save_file(broken, shard, metadata={"format": "pt"})
    checkpoint = open_checkpoint(str(tmp_path / "demo"))
    report = llmtrap.audit(str(tmp_path / "demo"), llmtrap.AuditSettings(alpha=False, include=(plain.id,)))
    plan = without_text(plan_repair(checkpoint, report, [Location(plain.id, 1, 2)]))
    write_repaired(checkpoint, plan, tmp_path / "new", None)
    after = load_file(tmp_path / "new" / shard.name)
    assert abs(float(after[plain.tensor][1, 2])) < 0.1
    after[plain.tensor][1, 2] = healthy[plain.tensor][1, 2]
    assert after.keys() == healthy.keys()
    for name, tensor in healthy.items():
        assert after[name].tobytes() == tensor.tobytes(), name


def test_a_place_outside_a_matrix_is_a_usage_error(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(_folder(tmp_path / "a", {})))
    report = _audit(tmp_path / "a")
    for text in (f"{ID}:64,0", f"{ID}:0,96", "layers.9.mlp.down:0,0", "nonsense", f"{ID}:-1,0"):
        with pytest.raises(UsageError):
            plan_repair(checkpoint, report, [Location.parse(text)])


@pytest.mark.parametrize("place", ["1", "1,2,3", "-1,2", "1.5,2", "²,1", f"1,{'9' * 5_000}", "x,y"])
def test_what_is_no_place_is_a_usage_error(place: str) -> None:
    with pytest.raises(UsageError, match="is no ID:ROW,COLUMN"):
        Location.parse(f"{ID}:{place}")


def test_it_never_writes_in_place_or_over_anything(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "broken", {(3, 5): 30.0})
    for out in (folder, folder / "inside"):
        with pytest.raises(OutputError):
            _repair(folder, out)
    assert not (folder / "inside").exists()


DYING = """
import os, signal, sys
from pathlib import Path
from llmtrap.ablation import rewrite as module

moment, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def dying(call):
    def wrapped(*arguments, **named):
        if moment.startswith("before"):
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return wrapped

owner, name = {
    "mkdir": (Path, "mkdir"), "copyfile": (module.shutil, "copyfile"), "patch": (module, "_apply"),
    "link": (module, "link_or_copy"), "document": (Path, "write_bytes"), "sync": (module, "sync_folder"),
    "rename": (Path, "rename"),
}[moment.split()[-1]]
setattr(owner, name, dying(getattr(owner, name)))
shard = "model-00002-of-00002.safetensors"
stored = (source / shard).read_bytes()
patch = module.Patch(shard, len(stored) - 2, stored[-2:], b"yy")
module.rewrite(source, out, [patch], {"llmtrap-repair.json": b"{}"})
"""


@pytest.mark.parametrize(
    ("moment", "whole"),
    [
        ("after mkdir", False),
        ("before copyfile", False),
        ("after copyfile", False),
        ("before patch", False),
        ("after patch", False),
        ("after link", False),
        ("before document", False),
        ("after document", False),
        ("before sync", False),
        ("after sync", False),
        ("before rename", False),
        ("after rename", True),
    ],
)
def test_killed_at_any_moment_there_is_a_whole_copy_or_none(moment: str, whole: bool, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "broken", {(3, 5): 30.0})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    out = tmp_path / "new"
    ended = subprocess.run([sys.executable, "-c", DYING, moment, folder, out], check=False, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert out.exists() == whole
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    # What was left does not stand in the way of the next try
    if whole:
        names = {path.relative_to(folder) for path in before}
        assert {p.relative_to(out) for p in out.rglob("*") if p.is_file()} == names | {Path("llmtrap-repair.json")}
        assert load_file(out / "model-00002-of-00002.safetensors").keys() == {UP, DOWN}
    else:
        assert _repair(folder, out).repairs
        assert (out / "llmtrap-repair.json").exists()


def test_the_command_repairs_and_says_so(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "broken", {(3, 5): 30.0})
    ended = run("repair", folder, "--out", tmp_path / "new")
    assert ended.returncode == 0, ended.stderr
    assert f"{ID} [3, 5]: 30 ->" in ended.stdout
    assert "1 entry repaired" in ended.stdout


@pytest.mark.parametrize(
    ("change", "se", "limits", "by", "named", "kept"),
    [
        (0.006, 0.001, 1.5, "mean", False, False),  # worse
        (0.006, 0.001, 1.5, "mean", True, False),
        (0.006, 0.001, 30.0, "base", False, False),
        (0.006, 0.004, 1.5, "mean", False, False),  # not told: nothing to repair
        (0.006, 0.004, 1.5, "mean", True, True),
        (0.0, 0.001, 1.5, "mean", False, False),
        (0.0, 0.001, 1.5, "mean", True, True),
        (0.0, 0.001, 1.5, "base", False, True),
        (0.0, 0.001, 21.0, "mean", False, True),
        (0.0, 0.001, None, "mean", False, True),  # NaN
        (-0.006, 0.001, 1.5, "mean", False, True),  # better
        (None, None, 1.5, "mean", False, True),  # without the repair the text has no finite loss
    ],
)
def test_the_text_says_what_is_repaired(
    change: float | None, se: float | None, limits: float | None, by: Remedy, named: bool, kept: bool
) -> None:
    location = Location(ID, 3, 5)
    plan = RepairPlan((Repair(location, 0.4, 0.0, by, limits),), ())
    checks = {location.name: TextCheck(1.0, 1.0, change, se)}
    judged = judged_on_text(plan, checks, [location] if named else [])
    assert (len(judged.repairs), len(judged.refused)) == ((1, 0) if kept else (0, 1))


def test_only_the_entry_that_is_named_is_changed(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "broken", {(3, 5): 30.0, (9, 9): 30.0})
    ended = run("repair", folder, "--out", tmp_path / "new", "--entry", f"{ID}:9,9")
    assert ended.returncode == 0, ended.stderr
    after = load_file(tmp_path / "new" / "model-00002-of-00002.safetensors")
    assert float(after[DOWN][3, 5]) == 30.0
    assert abs(float(after[DOWN][9, 9])) < 0.01
    assert run("repair", folder, "--out", tmp_path / "b", "--entry", f"{ID}:9").returncode == 2
