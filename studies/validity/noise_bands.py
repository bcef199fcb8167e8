"""How often noise is called `well` or `over`: by the fit alone, and where the whole spectrum is held against noise."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra import AnalysisSettings, analyse
from llmtrap.spectra.noise import compare_with_noise
from llmtrap.spectra.power_law import fit_power_law
from llmtrap.spectra.traps import edge_z
from studies.noise.simulate import gaussian_spectrum
from studies.validity.work import generator

RULE = "tracy-widom"
# Draws of spectra of Gaussian matrices, and of whole matrices with other entries.
SHAPES = {
    (64, 64): (1000, 60), (128, 128): (1000, 40), (256, 256): (400, 15), (512, 512): (120, 5), (768, 768): (60, 3),
    (256, 64): (1000, 40), (1024, 128): (1000, 20), (768, 192): (400, 15), (3072, 768): (40, 2),
}  # fmt: skip
LAWS = ("uniform", "signs", "truncated at 2", "Gaussian in BF16", "Student t, 8 degrees")


def called(law: str, shape: tuple[int, int], draws: int) -> dict[str, Any]:
    """Bands of one law and shape: of reliable fits alone, and as a report gives them."""
    rng = generator("noise_bands", law, shape)
    fitted: Counter[str] = Counter()
    reported: Counter[str] = Counter()
    for _ in range(draws):
        band, explained = _spectrum(shape, rng) if law == "Gaussian" else _matrix(law, shape, rng)
        fitted[str(band)] += 1
        reported["random" if explained else str(band)] += 1
    return {"law": law, "shape": list(shape), "draws": draws, "fitted": dict(fitted), "reported": dict(reported)}


def _spectrum(shape: tuple[int, int], rng: np.random.Generator) -> tuple[str | None, bool]:
    values = gaussian_spectrum(*shape, rng)
    fit = fit_power_law(values)
    beside = compare_with_noise(values, shape, float(values.sum()) / (shape[0] * shape[1]), edge_z(RULE, shape), 0)
    return None if fit is None else fit.band, beside is not None and beside.explains


def _matrix(law: str, shape: tuple[int, int], rng: np.random.Generator) -> tuple[str | None, bool]:
    found = analyse(_entries(law, shape, rng), AnalysisSettings(), matrix_id=law)
    fit = None if found.esd is None else found.esd.fit
    return None if fit is None else fit.band, found.noise is not None and found.noise.explains


def _entries(law: str, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    if law == "uniform":
        return rng.uniform(-1, 1, shape).astype(np.float32)
    if law == "signs":
        return rng.choice(np.array([-1, 1], dtype=np.float32), shape)
    if law == "truncated at 2":
        return np.clip(rng.standard_normal(shape, dtype=np.float32), -2, 2)
    if law == "Gaussian in BF16":
        bits = (0.02 * rng.standard_normal(shape)).astype(np.float32).view(np.uint32)
        return ((bits + 0x8000) & 0xFFFF0000).view(np.float32)
    return rng.standard_t(8, shape).astype(np.float32)


def cells(quick: bool) -> list[dict[str, Any]]:
    """Gaussian spectra first, then whole matrices."""
    return [
        {"law": law, "shape": list(shape), "draws": 2 if quick else draws[law != "Gaussian"]}
        for law in ("Gaussian", *LAWS)
        for shape, draws in SHAPES.items()
    ]
