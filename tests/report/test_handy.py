"""What a report can do from Python: short words, look-up, frames, files, a figure, a comparison."""

from __future__ import annotations

import csv
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import llmtrap
from llmtrap.errors import MissingExtraError, UsageError
from llmtrap.report import frames
from llmtrap.report.outputs import REPORT_OUTPUTS
from llmtrap.report.read import read_report
from llmtrap.report.spreadsheet import csv_text
from llmtrap.report.table import COLUMNS, row

UP = "model.layers.0.mlp.up_proj.weight"


def model(entry: float = 30.0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    tensors = {
        f"model.layers.{k}.mlp.{name}_proj.weight": rng.standard_normal(shape, dtype=np.float32)
        for k in range(7)
        for name, shape in (("up", (160, 96)), ("down", (96, 160)))
    }
    tensors[UP][7, 11] = entry
    return tensors


@pytest.fixture(scope="module")
def report() -> llmtrap.Report:
    return llmtrap.audit(model(), name="<b>mine</b>")


def test_a_report_and_a_matrix_are_shown_in_a_line(report: llmtrap.Report) -> None:
    assert repr(report) == str(report) == f"<Report <b>mine</b>: 14 matrices. {report.summary.verdict}>"
    shown = repr(report["layers.0.mlp.up"])
    assert shown.startswith("<Matrix layers.0.mlp.up 160 × 96 F32, α ")
    assert "entry [7, 11]" in shown
    assert len(repr(report)) < 500


def test_a_notebook_shows_the_verdict_and_the_ten_worst(report: llmtrap.Report) -> None:
    html = report._repr_html_()
    assert html.count("<tr>") == 11
    assert html.index("layers.0.mlp.up") < html.index("layers.3.mlp")
    assert "and 4 more" in html
    assert "<b>mine</b>" not in html.replace("<b>&lt;b&gt;mine&lt;/b&gt;</b>", "")


def test_a_matrix_is_found_by_id_and_by_tensor(report: llmtrap.Report) -> None:
    assert report["layers.0.mlp.up"] is report[UP]
    assert UP in report
    assert "layers.9.mlp.up" not in report
    with pytest.raises(KeyError, match=r"there is no matrix 'layers\.0\.mlp\.upp'\. Did you mean layers\.0\.mlp\.up"):
        report["layers.0.mlp.upp"]
    with pytest.raises(llmtrap.LlmtrapError):
        report["nothing like it"]


def test_tab_completion_offers_what_a_report_is_and_does(report: llmtrap.Report) -> None:
    offered = set(dir(report))
    assert {"summary", "matrices", "to_dataframe", "save", "compare"} <= offered
    assert not [name for name in offered if name.startswith(("model_", "_", "parse_", "schema_json"))]
    assert "plot" in dir(report.matrices[0])
    assert not [name for name in dir(report.matrices[0]) if name.startswith("model_")]


def test_the_frames_of_both_libraries_have_a_row_a_matrix(report: llmtrap.Report) -> None:
    one, other = report.to_dataframe("pandas"), report.to_dataframe("polars")
    assert isinstance(one, pd.DataFrame)
    assert isinstance(other, pl.DataFrame)
    assert list(one.columns) == other.columns == list(COLUMNS)
    up = one.set_index("id").loc["layers.0.mlp.up"]
    assert (up.traps, up.cause, up.cause_row, up.cause_column, up["rows"]) == (1, "entry", 7, 11, 160)
    assert other.height == len(report.matrices)


def test_without_either_library_the_extra_is_named(report: llmtrap.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"llmtrap\[frames\]"):
        report.to_dataframe()
    with pytest.raises(UsageError, match="pandas, polars"):
        report.to_dataframe("arrow")  # type: ignore[arg-type]


def test_a_report_is_saved_in_every_form_by_its_ending(report: llmtrap.Report, tmp_path: Path) -> None:
    paths = {end: report.save(tmp_path / f"r.{end}") for end in ("html", "json", "md", "csv", "parquet")}
    assert read_report(paths["json"]) == report
    assert paths["html"].read_text().startswith("<!DOCTYPE html>")
    assert report.summary.verdict.split(".")[0] in paths["md"].read_text()
    with paths["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [line["id"] for line in rows] == [matrix.id for matrix in report.matrices]
    # The same columns whatever writes them
    assert paths["csv"].read_text() == REPORT_OUTPUTS["csv"].write(report)
    kept = pl.read_parquet(paths["parquet"])
    assert list(rows[0]) == kept.columns == list(COLUMNS)
    assert kept.rows() == [row(matrix) for matrix in report.matrices]
    with pytest.raises(UsageError, match=r"ends in '\.xls'.*\.parquet"):
        report.save(tmp_path / "r.xls")


def test_a_name_that_is_a_formula_is_text_in_a_spreadsheet(tmp_path: Path) -> None:
    report = llmtrap.audit({"=1+1": np.eye(30) + np.arange(900).reshape(30, 30)})
    assert "'=1+1" in report.save(tmp_path / "r.csv").read_text()
    # Where the comma is a decimal point a semicolon parts cells, so it stands between quotes.
    assert csv_text([["a;=1+1", 'b"', "\uff1d1", "\t=1", None, True, -1.5]]) == (
        '"a;=1+1","b""",\'\uff1d1,\\t=1,,true,-1.5\n'
    )


def test_a_matrix_is_drawn_with_its_fit_its_shuffle_and_its_traps(report: llmtrap.Report) -> None:
    matrix = report["layers.0.mlp.up"]
    figure = matrix.plot()
    names = [trace.name for trace in figure.data]
    assert matrix.alpha is not None
    assert matrix.traps is not None
    assert names == ["spectrum", f"fit: α = {matrix.alpha.value:.2f}", "entries shuffled", "traps"]
    x, y = (np.asarray(it, dtype=float) for it in (figure.data[0].x, figure.data[0].y))
    assert np.nansum(y[:-1] * np.diff(np.log(x))) == pytest.approx(1)
    assert list(figure.data[3].x) == [trap.eigenvalue for trap in matrix.traps.found]
    json.loads(figure.to_json())


def test_without_a_spectrum_the_remedy_is_said() -> None:
    (matrix,) = llmtrap.audit({UP: model()[UP]}, alpha=False, traps="certify").matrices
    with pytest.raises(UsageError, match="alpha=True"):
        matrix.plot()


def test_two_reports_are_compared(report: llmtrap.Report) -> None:
    comparison = report.compare(llmtrap.audit(model(entry=0.0)))
    assert [shift.matrix.id for shift in comparison.of("new")] == ["layers.0.mlp.up"]
    assert len(repr(comparison)) < 300


def test_a_report_is_pickled_and_copied_as_before(report: llmtrap.Report) -> None:
    assert pickle.loads(pickle.dumps(report)) == report  # noqa: S301 - our own


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "llmtrap", "--version"], capture_output=True, text=True, check=True)
    assert llmtrap.__version__ in done.stdout
