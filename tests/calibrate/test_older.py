"""Reports of the first schema are read, shown, and lead to the same words as when they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmtrap.calibrate.document import CalibrationReport
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.page import to_html

REPORTS = sorted((Path(__file__).parents[2] / "reports").glob("calibrate-*.json"))


def test_there_are_reports_of_every_task() -> None:
    assert {path.stem.removeprefix("calibrate-") for path in REPORTS} >= {
        "composition-quick", "mnist-full", "mnist-paper-float32", "mnist-quick", "modular-addition-quick",
    }  # fmt: skip


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_report_of_the_first_schema_is_read_with_its_figures(path: Path) -> None:
    written = json.loads(path.read_text(encoding="utf-8"))
    report = CalibrationReport.model_validate_json(path.read_text(encoding="utf-8"))
    assert report.to_json_dict()["schema"] == "llmtrap.calibration/2"
    assert CalibrationReport.model_validate(report.to_json_dict()) == report
    for old, run in zip(written["runs"], report.runs, strict=True):
        assert [point["phase"] for point in old["checkpoints"]] == list(run.phases)
        for name in ("seed", "source", "complete", "peak_step"):
            assert old[name] == getattr(run, name), name
        assert (old["arm"], old["task"], old["purpose"]) == (run.recipe.arm, run.recipe.task, run.recipe.purpose)
        assert (old["steps"], old["planned_steps"]) == (run.last.step, run.recipe.steps)
        assert (old["steps_per_second"], old["remaining_seconds"]) == pytest.approx(
            (run.steps_per_second, run.remaining_seconds)
        )
        for point, measured in zip(old["checkpoints"], run.checkpoints, strict=True):
            _is_the_same(point["measured"], measured)


def _is_the_same(old: dict[str, object], measured: Measurement) -> None:
    layers = old.pop("layers")
    assert measured.model_dump(mode="json", exclude={"layers"}) == old | {"far_accuracy": old.get("far_accuracy")}
    assert isinstance(layers, list)
    for was, layer in zip(layers, measured.layers, strict=True):
        alpha, traps = layer.alpha, layer.traps
        assert [was[name] for name in ("alpha", "alpha_sigma", "alpha_ks", "alpha_xmin", "tail", "alpha_reliable")] == [
            alpha.value, alpha.sigma, alpha.ks, alpha.xmin, alpha.tail, alpha.reliable,
        ]  # fmt: skip
        assert [was[name] for name in ("traps", "traps_reliable", "mp_sigma", "entropy")] == [
            traps.count, traps.reliable, pytest.approx((traps.bulk_variance or 0.0) ** 0.5), layer.weight_entropy,
        ]  # fmt: skip
        for name in ("centred", "mean_shift", "low", "high", "kurtosis", "max_sigmas", "mean_ratio"):
            assert was[name] == getattr(traps, name), name
        for name in ("name", "entries", "edge_ratio", "centred_edge_ratio", "mp_ks", "mp_p"):
            assert was[name] == getattr(layer, name), name


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_report_of_the_first_schema_is_shown(path: Path) -> None:
    report = CalibrationReport.model_validate_json(path.read_text(encoding="utf-8"))
    page = to_html(report)
    assert all(arm in page for arm in {run.recipe.arm for run in report.runs})
    assert all(f"{run.peak_step:,}" in page for run in report.runs)


def test_what_is_no_matrix_of_either_schema_is_refused() -> None:
    line = {"step": 1, "layers": [{"alpha_reliable": True, "name": "fc1.weight"}]}
    with pytest.raises(ValueError, match=r"layers\.0\.traps\.count"):
        Measurement.model_validate(line)
