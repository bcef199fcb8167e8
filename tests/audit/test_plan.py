"""The plan: which matrices, in which order, and keys that stand for everything that changes a result."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.small_checkpoint import ids, write_small

from llmtrap.audit import AuditSettings, Part, Plan, make_plan
from llmtrap.audit import plan as plan_module
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.matrices import Stripes
from llmtrap.demo import write_demo_checkpoint
from llmtrap.errors import UsageError


def plan_of(folder: Path, settings: AuditSettings | None = None, part: Part | None = None) -> Plan:
    return make_plan(open_checkpoint(str(folder)), settings or AuditSettings(), part)


def keys(plan: Plan) -> dict[str, str]:
    return {task.matrix.id: task.key for task in plan.tasks}


# -- what is chosen -------------------------------------------------------------------------------------------------


def test_every_matrix_is_planned_and_every_other_tensor_has_a_reason(small: Path) -> None:
    plan = plan_of(small)

    assert {task.matrix.id for task in plan.tasks} == ids()
    assert {skipped.tensor for skipped in plan.skipped} == {
        f"model.layers.{layer}.input_layernorm.weight" for layer in (0, 1)
    }
    assert all(skipped.reason for skipped in plan.skipped)
    assert plan.bytes == sum(task.matrix.size for task in plan.tasks) * 4


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        (("layers.0.*",), (), {i for i in ids() if i.startswith("layers.0")}),
        (("*.mlp.*",), ("layers.1.*",), {"layers.0.mlp.gate", "layers.0.mlp.down"}),
        (("model.layers.1.self_attn.q_proj.weight",), (), {"layers.1.attention.q"}),
        (("*.attention.q", "*.mlp.down"), (), {i for i in ids() if i.endswith(("attention.q", "mlp.down"))}),
        ((), ("*attention*",), {i for i in ids() if "mlp" in i}),
        (("model-00002-of-*.safetensors",), (), {i for i in ids() if i.startswith("layers.1")}),
        ((), ("model-00002-of-00002.safetensors",), {i for i in ids() if i.startswith("layers.0")}),
        ((), ("*",), set()),
        (("LAYERS.0.*",), (), set()),
    ],
)
def test_globs_match_ids_tensor_names_and_files(
    small: Path, include: tuple[str, ...], exclude: tuple[str, ...], chosen: set[str]
) -> None:
    plan = plan_of(small, AuditSettings(include=include, exclude=exclude))

    left_out = {s.tensor: s.reason for s in plan.skipped if "clude" in s.reason}
    assert {task.matrix.id for task in plan.tasks} == chosen
    assert len(left_out) == len(ids()) - len(chosen)
    for reason in left_out.values():
        assert reason in ("not included by --include", *(f"excluded by --exclude {glob}" for glob in exclude))


def test_experts_are_left_out_one_by_one(tmp_path: Path) -> None:
    write_demo_checkpoint(tmp_path / "demo")
    plan = plan_of(tmp_path / "demo", AuditSettings(exclude=("layers.0.experts.[0-2].down",)))

    reasons = [s.tensor for s in plan.skipped if s.reason.startswith("excluded")]
    assert reasons == [f"layers.0.experts.{k}.down" for k in range(3)]
    assert "layers.0.experts.3.down" in keys(plan)


# -- the order ------------------------------------------------------------------------------------------------------


def test_work_goes_shard_by_shard_and_the_largest_first(small: Path) -> None:
    plan = plan_of(small)

    work = [plan.tasks[k] for k in plan.order]
    shards = [task.matrix.stored.parts[0].span.file for task in work]
    assert shards == sorted(shards)
    for shard in set(shards):
        costs = [task.cost for task in work if task.matrix.stored.parts[0].span.file == shard]
        assert costs == sorted(costs, reverse=True)
    assert sorted(plan.order) == list(range(len(plan.tasks)))


def test_what_is_too_large_to_hold_goes_first(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedding that must be shuffled takes as long as dozens of others: not begun last, whatever its shard."""
    largest = max(task.matrix.shape[0] * task.matrix.shape[1] for task in plan_of(small).tasks)
    monkeypatch.setattr(plan_module, "HELD_ENTRIES", largest - 1)
    plan = plan_of(small)

    sizes = [plan.tasks[k].matrix.shape[0] * plan.tasks[k].matrix.shape[1] for k in plan.order]
    number = sizes.count(largest)
    assert 0 < number < len(sizes)
    assert sizes[:number] == [largest] * number
    rest = [plan.tasks[k].matrix.stored.parts[0].span.file for k in plan.order[number:]]
    assert rest == sorted(rest)


@settings(deadline=None, max_examples=12)
@given(of=st.integers(1, 12))
def test_parts_share_the_work_without_loss_or_overlap(tmp_path_factory: pytest.TempPathFactory, of: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "parts"
    if not folder.is_dir():
        write_small(folder)
    whole = plan_of(folder)
    parts = [plan_of(folder, part=Part(number, of)) for number in range(1, of + 1)]

    assert sorted(k for part in parts for k in part.order) == sorted(whole.order)
    assert {part.key for part in parts} == {whole.key}
    assert max(len(part.order) for part in parts) - min(len(part.order) for part in parts) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "x/3", "1", "-1/3", "1/", "/3", "1/3/5", "²/3"])
def test_parts_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--part I/N"):
        Part.parse(text)


def test_a_part_is_read_as_it_is_written() -> None:
    assert Part.parse("2/3") == Part(2, 3)
    assert Part.parse("1/1").whole
    assert not Part.parse("1/2").whole


# -- the keys -------------------------------------------------------------------------------------------------------


def test_keys_are_the_same_for_the_same_content_and_distinct_for_every_matrix(small: Path) -> None:
    first, second = plan_of(small), plan_of(small)

    assert (keys(first), first.key) == (keys(second), second.key)
    assert len(set(keys(first).values())) == len(first.tasks)


@pytest.mark.parametrize(
    "changed",
    [
        AuditSettings(traps="measure"),
        AuditSettings(trap_rule="weightwatcher"),
        AuditSettings(alpha=False),
        AuditSettings(shuffles=6),
        AuditSettings(seed=1),
        AuditSettings(backend="numpy"),
        AuditSettings(device="cpu"),
    ],
)
def test_a_setting_that_changes_a_number_changes_every_key(small: Path, changed: AuditSettings) -> None:
    before, after = plan_of(small), plan_of(small, changed)

    assert not set(keys(before).values()) & set(keys(after).values())
    assert before.key != after.key


def test_a_choice_of_matrices_changes_no_key_of_a_matrix(small: Path) -> None:
    before, after = plan_of(small), plan_of(small, AuditSettings(exclude=("layers.0.*",)))

    assert keys(after).items() < keys(before).items()
    assert before.key != after.key


def test_a_changed_file_changes_the_keys_of_its_matrices_alone(small: Path) -> None:
    before = keys(plan_of(small))
    shard = small / "model-00002-of-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    after = keys(plan_of(small))

    assert {name for name in before if before[name] != after[name]} == {i for i in ids() if i.startswith("layers.1")}


def test_a_file_that_was_written_again_is_not_trusted_to_be_the_same(small: Path) -> None:
    before = keys(plan_of(small))
    shard = small / "model-00001-of-00002.safetensors"
    status = shard.stat()
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    assert {name for name, key in keys(plan_of(small)).items() if key != before[name]} == {
        i for i in ids() if i.startswith("layers.0")
    }


def test_another_version_of_llmtrap_changes_every_key(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(plan_of(small))
    monkeypatch.setattr(sys.modules["llmtrap.audit.plan"], "__version__", "0.0.0+other")

    assert not set(before.values()) & set(keys(plan_of(small)).values())


def test_a_matrix_named_otherwise_has_another_key(small: Path) -> None:
    checkpoint = open_checkpoint(str(small))
    renamed = replace(checkpoint, matrices=tuple(replace(m, role="other") for m in checkpoint.matrices))
    before, after = (make_plan(c, AuditSettings()) for c in (checkpoint, renamed))

    assert not set(keys(before).values()) & set(keys(after).values())


# -- the estimate ---------------------------------------------------------------------------------------------------


def test_the_estimate_grows_with_the_matrix_and_with_what_is_measured(tmp_path: Path) -> None:
    small, large = write_small(tmp_path / "a"), write_small(tmp_path / "b", scale=4)

    assert 0 < plan_of(small).core_seconds < plan_of(large).core_seconds
    without, certified, measured = (
        plan_of(large, settings).core_seconds
        for settings in (AuditSettings(alpha=False), AuditSettings(), AuditSettings(traps="measure"))
    )
    assert 0 < without < certified < measured


@pytest.mark.parametrize("field", ["aliases", "part", "layer", "role", "expert", "index", "rows", "columns", "shape"])
def test_whatever_a_result_says_of_its_matrix_is_in_its_key(small: Path, field: str) -> None:
    checkpoint = open_checkpoint(str(small))
    first, *others = checkpoint.matrices
    changes = {
        "aliases": ("unembedding",), "part": "vision", "layer": 7, "role": "other", "expert": 3, "index": 1,
        "rows": Stripes(0, 2, 1, 4), "columns": Stripes(0, 2, 1, 4), "shape": (first.shape[0] // 2, first.shape[1]),
    }  # fmt: skip
    changed = replace(checkpoint, matrices=(replace(first, **{field: changes[field]}), *others))
    before, after = (make_plan(it, AuditSettings()) for it in (checkpoint, changed))
    assert before.tasks[0].key != after.tasks[0].key
    assert [task.key for task in before.tasks[1:]] == [task.key for task in after.tasks[1:]]
    assert before.key != after.key


@pytest.mark.parametrize("field", ["name", "dtype", "shape", "start"])
def test_where_a_matrix_lies_is_in_its_key(small: Path, field: str) -> None:
    checkpoint = open_checkpoint(str(small))
    first, *others = checkpoint.matrices
    (entry,) = first.stored.parts
    changes = {
        "name": {"name": "other"}, "dtype": {"dtype": "BF16"}, "shape": {"shape": entry.shape[::-1]},
        "start": {"span": replace(entry.span, start=entry.span.start + 8, stop=entry.span.stop + 8)},
    }  # fmt: skip
    stored = replace(first.stored, parts=(replace(entry, **changes[field]),))  # type: ignore[arg-type]
    changed = replace(checkpoint, matrices=(replace(first, stored=stored), *others))
    before, after = (make_plan(it, AuditSettings()) for it in (checkpoint, changed))
    assert before.tasks[0].key != after.tasks[0].key
    assert [task.key for task in before.tasks[1:]] == [task.key for task in after.tasks[1:]]


def test_a_file_that_was_put_back_with_its_old_time_is_another(small: Path) -> None:
    shard = sorted(small.glob("*.safetensors"))[0]
    before, status, content = plan_of(small), shard.stat(), shard.read_bytes()
    shard.write_bytes(content)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    in_place = plan_of(small)
    copy = shard.with_suffix(".copy")
    copy.write_bytes(content)
    copy.replace(shard)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    moved = plan_of(small)
    keys = [plan.tasks[0].key for plan in (before, in_place, moved)]
    assert len(set(keys)) == 3
