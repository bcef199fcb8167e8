"""The validity study's own mathematics, and that its page says what its results say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from studies.validity import page
from studies.validity.__main__ import PARTS
from studies.validity.gaussian_edge import edge_of_gaussian, exceeds
from studies.validity.planting import allowed_kurtosis
from studies.validity.soundness import ATOMS, certified, entries_of
from studies.validity.work import RESULTS, interval, upper_limit

from llmtrap.spectra.tracy_widom import EdgeLaw


def test_a_sturm_sequence_tells_what_eigenvalues_tell() -> None:
    rng = np.random.default_rng(1)
    diagonal, coupling, variance = edge_of_gaussian(60, 40, 300, rng)
    matrices = np.zeros((300, 40, 40))
    steps = np.arange(40)
    matrices[:, steps, steps] = diagonal[:, :40]
    depth = diagonal.shape[1]
    matrices[:, steps[: depth - 1], steps[1:depth]] = matrices[:, steps[1:depth], steps[: depth - 1]] = np.sqrt(
        coupling
    )
    top = np.linalg.eigvalsh(matrices[:, :depth, :depth])[:, -1]
    for z in (-3.0, -1.2, 0.5):
        threshold = EdgeLaw.of(60, 40).eigenvalue(z) * variance
        assert (exceeds(diagonal, coupling, threshold) == (top > threshold)).all()


def test_the_bidiagonal_edge_is_that_of_gaussian_matrices() -> None:
    rng = np.random.default_rng(2)
    law = EdgeLaw.of(90, 64)
    z = []
    for _ in range(1500):
        matrix = rng.standard_normal((90, 64))
        z.append(law.z(float(np.linalg.eigvalsh(matrix.T @ matrix)[-1] / (matrix**2).mean())))
    diagonal, coupling, variance = edge_of_gaussian(90, 64, 40_000, rng)
    for level in (-2.0, -1.2, 0.0, 1.0):
        share = float(exceeds(diagonal, coupling, law.eigenvalue(level) * variance).mean())
        assert float(np.mean(np.array(z) > level)) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1500))


@pytest.mark.parametrize("bulk", ["gaussian", "signs"])
def test_the_search_stands_at_the_border_of_the_certificate(bulk: str) -> None:
    shape = (128, 128)
    for distance in (0.6, 0.8, 1.0):
        point = np.concatenate([np.full(ATOMS, distance), np.full(2 * ATOMS + 1, 0.5)])
        matrix = entries_of(point, shape, bulk)
        assert matrix is not None
        assert certified(matrix)
        kurtosis = float(((matrix - matrix.mean()) ** 4).mean() / matrix.var() ** 2)
        assert 0.9 * allowed_kurtosis(shape) < kurtosis < allowed_kurtosis(shape)


def test_limits_of_rates() -> None:
    assert upper_limit(0, 1_000_000) == pytest.approx(2.9957e-6, rel=1e-3)
    assert upper_limit(3, 3) == 1.0
    assert interval(0, 10)[0] == 0.0
    assert interval(5, 10) == pytest.approx((0.187, 0.813), abs=1e-3)


def test_the_page_is_that_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number in a table was written by hand, and none is older than its results."""
    committed = page.PAGE.read_text()
    monkeypatch.setattr(page, "PAGE", tmp_path / "validity.md")
    monkeypatch.setattr(page.figures, "draw_all", lambda _: None)
    page.write()
    assert (tmp_path / "validity.md").read_text() == committed
    for name in ("null", "power", "soundness", "alpha"):
        assert (Path(page.__file__).parents[2] / "docs" / "figures" / f"validity-{name}.svg").stat().st_size > 1000


@pytest.mark.parametrize("name", PARTS)
def test_the_results_are_those_of_a_whole_run(name: str) -> None:
    """One result for each cell of the command, in its order: none of a run that was stopped, none of a quick one."""
    cells = importlib.import_module(f"studies.validity.{PARTS[name][0]}").cells(quick=False)
    results = json.loads((RESULTS / f"{name}.json").read_text())
    assert len(results) == len(cells)
    for cell, result in zip(cells, results, strict=True):
        shape = {"shape": [cell["rows"], cell["columns"]]} if "rows" in cell and "shape" in result else {}
        # What a family or a search adds up over its matrices is no setting of the cell.
        kept = {key: value for key, value in cell.items() if key in result and key != "shuffles"}
        assert {key: result[key] for key in (*kept, *shape)} == kept | shape


def test_results_hold_what_they_claim() -> None:
    """At least 10⁵ null matrices besides the Gaussian edge, and no certified trap among them."""
    null = json.loads((RESULTS / "false_positives.json").read_text())
    assert sum(cell["draws"] for cell in null) >= 100_000
    assert sum(cell["certified_traps"] for cell in null) == 0
