"""Values beside the matrices: NaN, infinities and layers of zeros in norms, biases and whatever was not measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.documents import verdict_section
from tests.support.raw_safetensors import header, write

import llmtrap
from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions, journal_for, merge_journals
from llmtrap.audit.settings import Part
from llmtrap.checkpoint import open_checkpoint
from llmtrap.report.document import Report, TensorFinding
from llmtrap.report.html import to_html
from llmtrap.report.markdown import to_markdown
from llmtrap.report.text import plain
from llmtrap.report.verdict import judge

QUICK = AuditSettings(alpha=False, traps="certify")
NORM = "model.layers.0.input_layernorm.weight"


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {f"model.layers.{k}.mlp.up_proj.weight": rng.standard_normal((96, 64)).astype(np.float32) for k in range(2)}
    return made | {NORM: np.ones(64, np.float32), "model.layers.0.mlp.up_proj.bias": np.zeros(96, np.float32)}


def report_of(folder: Path, **changes: np.ndarray) -> Report:
    save_file(tensors() | changes, folder / "model.safetensors")
    return llmtrap.audit(str(folder), QUICK)


def test_a_healthy_checkpoint_has_no_findings_and_zero_biases_are_healthy(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    assert (report.tensors, report.summary.non_finite, report.summary.all_zero) == ((), 0, 0)
    assert (judge(report).word, report.summary.level) == ("Usual", "usual")


@pytest.mark.parametrize(("value", "counted"), [(np.nan, (1, 0)), (np.inf, (0, 1)), (-np.inf, (0, 1))])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_one_bad_value_in_a_norm_breaks_the_model_and_every_face_says_so(
    tmp_path: Path, value: float, counted: tuple[int, int], dtype: Any
) -> None:
    norm = np.ones(64, dtype)
    norm[3] = value
    report = report_of(tmp_path, **{NORM: norm})
    (found,) = report.tensors
    assert (found.tensor, found.shape, found.first, found.all_zero) == (NORM, (64,), (3,), False)
    assert (found.nan, found.inf) == counted
    assert (report.summary.non_finite, report.summary.level) == (1, "broken")
    page = to_html(report)
    assert "<title>Broken values" in page
    for text, said in ((page, verdict_section(page)), *((it, it) for it in (plain(report), to_markdown(report)))):
        assert "Broken values" in said
        assert NORM in text
        assert "the first at [3]" in text
        assert "Usual" not in said


def test_a_bad_value_in_a_kernel_is_found_in_its_matrix(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).standard_normal((32, 3, 14, 14)).astype(np.float32)
    kernel[5, 1, 2, 4] = np.nan
    report = report_of(tmp_path, **{"vision.conv.weight": kernel})
    (found,) = [m for m in report.matrices if m.non_finite is not None]
    assert (found.tensor, found.shape) == ("vision.conv.weight", (32, 588))
    assert found.non_finite is not None
    assert (found.non_finite.row, found.non_finite.column) == (5, (1 * 14 + 2) * 14 + 4)
    assert report.summary.level == "broken"


def test_the_place_is_that_of_the_first_in_a_long_vector(tmp_path: Path) -> None:
    long = np.ones(3_000_000, np.float32)
    long[[2_500_000, 2_500_007]] = np.nan, np.inf
    (found,) = report_of(tmp_path, flat=long).tensors
    assert (found.nan, found.inf, found.first) == (1, 1, (2_500_000,))


@pytest.mark.parametrize("name", [NORM, "h.0.ln_1.weight", "encoder.LayerNorm.gamma", "decoder.norm1.weight"])
def test_a_norm_of_zeros_switches_its_layer_off(tmp_path: Path, name: str) -> None:
    report = report_of(tmp_path, **{name: np.zeros(64, np.float32)})
    assert report.tensors == (
        TensorFinding(tensor=name, shape=(64,), encoding="F32", nan=0, inf=0, first=None, all_zero=True),
    )
    assert (judge(report).word, report.summary.all_zero, report.summary.level) == ("Unusual", 1, "unusual")


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_matrix_of_zeros_is_a_finding(tmp_path: Path, zero: float) -> None:
    report = report_of(tmp_path, **{"model.layers.1.mlp.up_proj.weight": np.full((96, 64), zero, np.float32)})
    assert [m.id for m in report.matrices if m.all_zero] == ["layers.1.mlp.up"]
    answers = judge(report)
    assert (answers.word, report.summary.all_zero, report.summary.level) == ("Unusual", 1, "unusual")
    assert answers.worst is not None
    assert answers.worst.id == "layers.1.mlp.up"
    assert "every entry is zero" in plain(report)


@pytest.mark.parametrize(
    ("dtype", "codes", "counted"),
    [
        ("F8_E8M0", [127, 255], (1, 0)),
        ("C64", np.array([1 + 1j, complex(1, np.nan)], "<c8"), (1, 0)),
        ("C64", np.array([1 + 1j, complex(np.inf, 0)], "<c8"), (0, 1)),
    ],
)
def test_formats_that_are_not_measured_are_looked_through(
    tmp_path: Path, dtype: str, codes: Any, counted: tuple[int, int]
) -> None:
    data = np.asarray(codes, np.uint8 if dtype == "F8_E8M0" else None)
    write(tmp_path / "model.safetensors", header({"lost": (dtype, (2,))}), data.tobytes())
    (found,) = llmtrap.audit(str(tmp_path), QUICK).tensors
    assert (found.nan, found.inf, found.first) == (*counted, (1,))


def test_what_was_left_out_on_request_is_not_looked_at(tmp_path: Path) -> None:
    bad = np.full((96, 64), np.nan, np.float32)
    save_file(tensors() | {"model.layers.1.mlp.up_proj.weight": bad}, tmp_path / "model.safetensors")
    report = llmtrap.audit(str(tmp_path), AuditSettings(alpha=False, traps="certify", include=("layers.0.*",)))
    assert (report.tensors, report.summary.level) == ((), "partly_measured")


def test_a_norm_that_cannot_be_read_counts_as_unreadable(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    run = AuditRun(checkpoint, QUICK, RunOptions(workers=1))
    # In place: a file that gets another's name stays what it was for who has it open
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(bytes(4))
    (report,) = [event.report for event in run.events() if isinstance(event, Finished)]
    assert report is not None
    kinds = {item.tensor: (item.kind, item.reason) for item in report.coverage.skipped}
    assert kinds[NORM][0] == "unreadable"
    assert "changed while it was audited" in kinds[NORM][1]
    assert report.matrices == ()


def test_parts_that_are_merged_keep_what_was_found_beside_the_matrices(tmp_path: Path) -> None:
    norm = np.ones(64, np.float32)
    norm[3] = np.nan
    whole = report_of(tmp_path, **{NORM: norm})
    paths = []
    for number in (1, 2):
        checkpoint = open_checkpoint(str(tmp_path))
        journal = journal_for(checkpoint, tmp_path / f"j{number}")
        paths.append(journal.path)
        list(AuditRun(checkpoint, QUICK, RunOptions(workers=1, part=Part(number, 2)), journal).events())
    merged = merge_journals(paths)
    assert merged.tensors == whole.tensors != ()
    assert merged.coverage == whole.coverage
    assert merged.summary.level == "broken"
    assert merged.summary.remembered is not None
    assert merged.summary.remembered.matrices == 2


def test_norms_that_no_part_came_to_look_at_are_not_called_whole(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    journal = journal_for(checkpoint, tmp_path / "j")
    events = AuditRun(checkpoint, QUICK, RunOptions(workers=1, part=Part(1, 2)), journal).events()
    next(events)
    events.close()
    merged = merge_journals([journal.path])
    assert {item.kind for item in merged.coverage.skipped} == {"unreadable"}
    assert merged.summary.level == "nothing_measured"
