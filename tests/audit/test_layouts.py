"""Checkpoints of which a part is easily overlooked: what is measured, what is said of the rest, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

import llmtrap
from llmtrap.audit import AuditSettings
from llmtrap.cli.audit import is_whole
from llmtrap.errors import UsageError
from llmtrap.report.document import Report
from llmtrap.report.html import to_html
from llmtrap.report.markdown import to_markdown
from llmtrap.report.text import plain
from llmtrap.report.verdict import judge

QUICK = AuditSettings(alpha=False, traps="certify")
D, F, E = 96, 128, 6
Tensors = dict[str, NDArray[Any]]


def drawn(*shape: int) -> NDArray[np.float32]:
    return (0.02 * np.random.default_rng([*shape]).standard_normal(shape)).astype(np.float32)


def decoder() -> Tensors:
    made: Tensors = {"model.embed_tokens.weight": drawn(320, D), "lm_head.weight": drawn(320, D)}
    for layer in range(2):
        made |= {f"model.layers.{layer}.self_attn.{n}_proj.weight": drawn(D, D) for n in "qkvo"}
        made[f"model.layers.{layer}.input_layernorm.weight"] = np.ones(D, np.float32)
    return made


def report_of(folder: Path, tensors: Tensors, settings: AuditSettings = QUICK) -> Report:
    save_file(tensors, folder / "model.safetensors")
    return llmtrap.audit(str(folder), settings)


def outcome(report: Report) -> tuple[str, str, bool]:
    return judge(report).word, report.summary.level, is_whole(report)


CLEAN = ("Usual", "usual", True)
PARTLY = ("Partly measured", "partly_measured", False)
NOTHING = ("Nothing measured", "nothing_measured", False)


# -- stacks under any name ------------------------------------------------------------------------------------------

STACKS = {
    "mlx": "model.layers.{}.mlp.switch_mlp.{}.weight",
    "step3": "model.layers.{}.moe.{}.weight",
    "no word of experts": "model.layers.{}.ffn.{}.weight",
    "flax": "decoder.layer_{}.mlp.{}.kernel",
}


@pytest.mark.parametrize("names", STACKS.values(), ids=STACKS)
def test_stacks_of_experts_are_measured_slice_by_slice(tmp_path: Path, names: str) -> None:
    tensors = decoder()
    for layer in range(2):
        for name, shape in (("gate_proj", (F, D)), ("up_proj", (F, D)), ("down_proj", (D, F))):
            tensors[names.format(layer, name)] = drawn(E, *shape)
    tensors[names.format(0, "down_proj")][2, 3, 4] = 15.0
    report = report_of(tmp_path, tensors)
    assert report.coverage.planned == report.coverage.audited == 10 + 2 * 3 * E
    (trapped,) = [m for m in report.matrices if m.traps is not None and m.traps.centred]
    assert (trapped.tensor, trapped.expert, trapped.shape) == (names.format(0, "down_proj"), 2, (D, F))
    assert trapped.traps is not None
    assert [(t.cause.row, t.cause.column) for t in trapped.traps.found] == [(3, 4)]
    assert outcome(report) == ("Unusual", "unusual", True)


# -- weights that nothing says how to read ----------------------------------------------------------------------------

UNREAD: dict[str, Tensors] = {
    "int8 embedding": {"table": np.zeros((500, 64), np.int8)},
    "packed words": {f"l{k}.packed": np.zeros((64, 96), np.uint32) for k in range(3)},
    "a flat vector": {"model.flat_weights": drawn(50_000)},
    "a blob of bytes": {"model.blob": np.zeros(60_000, np.uint8)},
    "16-bit codes": {"codes": np.zeros((300, 64), np.int16)},
}


@pytest.mark.parametrize("unread", UNREAD.values(), ids=UNREAD)
def test_weights_that_cannot_be_read_are_never_called_clean(tmp_path: Path, unread: Tensors) -> None:
    report = report_of(tmp_path, decoder() | unread)
    assert outcome(report) == PARTLY
    assert set(judge(report).unmeasured) == set(unread)
    assert report.coverage.counts is not None
    assert report.coverage.counts.unmeasured.parameters == sum(value.size for value in unread.values())


@pytest.mark.parametrize("unread", UNREAD.values(), ids=UNREAD)
def test_alone_they_are_nothing_audited(tmp_path: Path, unread: Tensors) -> None:
    assert outcome(report_of(tmp_path, unread)) == NOTHING


# -- what is no weight ------------------------------------------------------------------------------------------------

HARMLESS: dict[str, Tensors] = {
    "GPT-2's masks": {f"h.{k}.attn.bias": np.tril(np.ones((1, 1, 256, 256), np.float32)) for k in range(4)},
    "a mask of bytes": {"h.0.attn.bias": np.ones((1, 1, 256, 256), np.uint8)},
    "positions": {"position_ids": np.arange(5000)[None]},
    "window tables": {"relative_position_index": np.zeros((196, 196), np.int64)},
    "rotary tables": {"rotary_emb.cos_cached": np.ones((1, 1, 4096, 64), np.float32)},
    "batch statistics": {"bn.running_mean": np.zeros(96, np.float32), "bn.num_batches_tracked": np.array(7)},
    "a class token": {"vit.cls_token": drawn(1, 1, 96)},
    "a scale a channel": {"stage.gamma": drawn(96, 1, 1)},
}


@pytest.mark.parametrize("harmless", HARMLESS.values(), ids=HARMLESS)
def test_buffers_and_vectors_leave_a_checkpoint_whole(tmp_path: Path, harmless: Tensors) -> None:
    report = report_of(tmp_path, decoder() | harmless)
    assert outcome(report) == CLEAN
    assert {m.tensor for m in report.matrices}.isdisjoint(harmless)


# -- convolutions -----------------------------------------------------------------------------------------------------


def test_a_network_of_convolutions_is_measured(tmp_path: Path) -> None:
    report = report_of(tmp_path, {f"layer{k}.conv.weight": drawn(64, 64, 3, 3) for k in range(4)})
    assert {m.shape for m in report.matrices} == {(64, 576)}
    assert (outcome(report), report.coverage.share) == (CLEAN, 1.0)


def test_a_huge_entry_of_a_kernel_is_a_trap_with_its_place(tmp_path: Path) -> None:
    kernel = drawn(96, 48, 3, 3)
    kernel[7, 5, 1, 2] = 9.0
    (matrix,) = report_of(tmp_path, {"conv.weight": kernel}).matrices
    assert matrix.traps is not None
    (trap,) = matrix.traps.found
    assert (trap.cause.row, trap.cause.column) == (7, (5 * 3 + 1) * 3 + 2)


# -- nothing, or what was asked for -----------------------------------------------------------------------------------


def test_norms_alone_are_nothing_audited(tmp_path: Path) -> None:
    assert outcome(report_of(tmp_path, {"norm.weight": np.ones(64, np.float32)})) == NOTHING


def test_everything_left_out_on_request_is_nothing_audited(tmp_path: Path) -> None:
    assert outcome(report_of(tmp_path, decoder(), AuditSettings(exclude=("*",)))) == NOTHING


def test_a_part_that_was_asked_for_is_whole_but_not_called_clean(tmp_path: Path) -> None:
    report = report_of(tmp_path, decoder(), AuditSettings(alpha=False, include=("layers.0.*",)))
    assert outcome(report) == ("Partly measured", "partly_measured", True)


@pytest.mark.parametrize(
    ("glob", "near"),
    [
        ("*q_prj*", "layers.0.attention.q"),
        ("layers.9.*", "there is layers.0."),
        ("embeding", "embedding"),
        ("xyz", "llmtrap inspect"),
    ],
)
def test_a_pattern_that_matches_nothing_is_a_mistake_and_names_what_is_near(
    tmp_path: Path, glob: str, near: str
) -> None:
    with pytest.raises(UsageError, match="matches no matrix") as failure:
        report_of(tmp_path, decoder(), AuditSettings(include=("layers.0.*", glob)))
    assert failure.value.exit_code == 2
    assert near in failure.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"traps": "sometimes"},
        {"trap_rule": "gumbel"},
        {"seed": -1},
        {"seed": 1 << 63},
        {"shuffles": 0},
        {"include": "layers.0.*"},
        {"exclude": "layers.0.*"},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AuditSettings(**wrong)


# -- parts of fused matrices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [False, True])
def test_an_entry_has_its_place_in_the_stored_tensor(tmp_path: Path, split: bool) -> None:
    """GPT-2 keeps q, k and v side by side in columns; the entry lies in k."""
    fused = drawn(192, 576)
    fused[101, 300] = 3.0
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 4, "n_embd": 192}')
    tensors = {"transformer.h.0.attn.c_attn.weight": fused, "transformer.h.0.attn.c_proj.weight": drawn(192, 192)}
    report = report_of(tmp_path, tensors, AuditSettings(split_fused=split))
    (matrix,) = [m for m in report.matrices if m.traps is not None and m.traps.centred]
    assert matrix.shape == ((192, 192) if split else (192, 576))
    assert matrix.traps is not None
    (trap,) = matrix.traps.found
    assert (trap.cause.row, trap.cause.column) == (101, 300)
    assert trap.cause.value == fused[101, 300]


def test_nan_has_its_place_in_the_stored_tensor_too(tmp_path: Path) -> None:
    fused = drawn(192, 576)
    fused[101, 300] = np.nan
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 4, "n_embd": 192}')
    tensors = {"transformer.h.0.attn.c_attn.weight": fused, "transformer.h.0.attn.c_proj.weight": drawn(192, 192)}
    report = report_of(tmp_path, tensors, AuditSettings(split_fused=True))
    (bad,) = [m.non_finite for m in report.matrices if m.non_finite is not None]
    assert (bad.row, bad.column) == (101, 300)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.embed_positions.weight", "position"),
        ("model.query_tokens", "query_tokens"),
        ("model.layers.0.mixer.A_log", "ssm.A_log"),
    ],
)
def test_a_table_is_named_counted_apart_and_not_measured(tmp_path: Path, name: str, role: str) -> None:
    table = drawn(3200, D)
    table[7, 5] = 5.0
    report = report_of(tmp_path, {**decoder(), name: table})

    assert role not in {matrix.role for matrix in report.matrices}
    (left_out,) = [item for item in report.coverage.skipped if item.tensor == name]
    assert (left_out.kind, left_out.parameters, left_out.bytes) == ("table", table.size, table.nbytes)
    assert f"({role})" in left_out.reason
    assert report.coverage.counts is not None
    assert report.coverage.counts.table.parameters == table.size
    assert (outcome(report), report.coverage.counts.unmeasured.count) == (CLEAN, 0)
    for output in (plain(report), to_markdown(report), to_html(report)):
        assert f"1 table of positions, learned tokens or decays ({table.size:,} numbers)" in output


def test_a_table_is_looked_through_for_nan(tmp_path: Path) -> None:
    table = drawn(320, D)
    table[7, 5] = np.nan
    report = report_of(tmp_path, {**decoder(), "model.embed_positions.weight": table})
    assert report.summary.level == "broken"
    assert [(found.tensor, found.first) for found in report.tensors] == [("model.embed_positions.weight", (7, 5))]
