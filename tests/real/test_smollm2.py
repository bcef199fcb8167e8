"""SmolLM2 in five storage formats: its traps, WeightWatcher's α, and agreement as far as formats round."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.audits import audit, matrices_of, traps_of, unaccounted_tensors
from tests.support.smollm2 import read_checkpoint
from tests.support.weightwatcher import FLOOR, run_weightwatcher

import llmtrap
from llmtrap.report.document import Matrix
from llmtrap.spectra import compute_esd, fit_power_law
from llmtrap.spectra.backends import NumpyBackend

FOLDERS = ("smollm2_bf16", "smollm2_mxfp4", "smollm2_mxfp4_bf16", "smollm2_fp8_128", "smollm2_fp8_64")
SETTINGS: dict[str, dict[str, str]] = {"smollm2_fp8_64": {"traps": "certify"}}  # one FP8 twin shuffled is enough
PARTS = pytest.mark.parametrize(
    "include", [("layers.[0-3].*",), pytest.param((), marks=pytest.mark.thorough)], ids=["four layers", "whole"]
)
WITH_TRAPS = {"layers.0.attention.o", "layers.27.mlp.gate"}


def with_traps(report: llmtrap.Report) -> set[str]:
    """Matrices with a trap in every shuffle."""
    return {name for name, traps in traps_of(report).items() if traps.reliable and traps.low > 0}


def difference(ours: float | None, theirs: float | None) -> float:
    """Relative difference."""
    assert ours is not None
    assert theirs is not None
    return abs(theirs / ours - 1)


def assert_spectra_agree(
    pairs: Iterable[tuple[Matrix, Matrix]], *, spectral_norm: float, frobenius_norm: float, alpha: float
) -> None:
    """Norms agree in every pair, α to `alpha` in the median and to ten times that in nine of ten.

    In the rest it may jump: rounding lets another of two equally good tails win.
    """
    alphas = []
    for one, other in pairs:
        assert one.spectrum is not None
        assert other.spectrum is not None
        assert one.alpha is not None
        assert other.alpha is not None
        assert difference(one.spectrum.spectral_norm, other.spectrum.spectral_norm) < spectral_norm, one.id
        assert difference(one.spectrum.frobenius_norm, other.spectrum.frobenius_norm) < frobenius_norm, one.id
        if one.alpha.reliable and other.alpha.reliable:
            alphas.append(difference(one.alpha.value, other.alpha.value))
    assert len(alphas) > 20
    assert np.median(alphas) < alpha
    assert np.quantile(alphas, 0.9) < 10 * alpha


def test_two_matrices_have_traps_each_of_two_to_four_entries(smollm2_bf16: Path) -> None:
    report = audit(smollm2_bf16)
    stored = read_checkpoint(smollm2_bf16)

    assert with_traps(report) == WITH_TRAPS
    for name in WITH_TRAPS:
        matrix = matrices_of(report)[name]
        assert matrix.traps is not None
        assert 2 <= matrix.traps.low <= matrix.traps.high <= 4
        values = stored[matrix.tensor].astype(np.float32)
        fourth_largest = np.sort(np.abs(values), axis=None)[-4]
        assert 2 <= len(matrix.traps.found) <= 4
        for trap in matrix.traps.found:
            assert trap.cause.kind == "entry"
            assert trap.cause.value == values[trap.cause.row, trap.cause.column]
            assert abs(trap.cause.value) >= fourth_largest


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["smollm2_bf16", "smollm2_mxfp4"])
def test_certified_matrices_hold_no_trap(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    automatic = traps_of(audit(folder))
    measured = traps_of(audit(folder, traps="measure", alpha=False))

    certified = [key for key, traps in automatic.items() if traps.method == "certified"]
    assert len(certified) > len(automatic) / 2
    assert {key: (measured[key].method, measured[key].high) for key in certified} == dict.fromkeys(
        certified, ("measured", 0)
    )


@pytest.mark.parametrize(
    "name", ["smollm2_bf16", *(pytest.param(name, marks=pytest.mark.thorough) for name in FOLDERS[1:])]
)
def test_every_tensor_is_accounted_for(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    report = audit(folder, **SETTINGS.get(name, {}))

    assert unaccounted_tensors(folder, report) == (set(), set())
    assert report.coverage.planned == report.coverage.audited == len(report.matrices)
    (embedding,) = [matrix for matrix in report.matrices if matrix.id == "embedding"]
    assert embedding.aliases == ("unembedding",)


@PARTS
def test_mxfp4_and_its_upcast_are_measured_alike(
    include: tuple[str, ...], smollm2_mxfp4: Path, smollm2_mxfp4_bf16: Path
) -> None:
    packed, upcast = (matrices_of(audit(folder, include=include)) for folder in (smollm2_mxfp4, smollm2_mxfp4_bf16))

    assert packed.keys() == upcast.keys()
    assert_spectra_agree(
        [(packed[name], upcast[name]) for name in packed], spectral_norm=1e-6, frobenius_norm=1e-6, alpha=1e-6
    )
    for name, one in packed.items():
        other = upcast[name]
        transposed = one.expert is not None
        assert one.shape == (other.shape[::-1] if transposed else other.shape)
        assert one.alpha is not None
        assert other.alpha is not None
        assert one.alpha.tail == other.alpha.tail
        assert one.traps is not None
        assert other.traps is not None
        assert one.traps.method == other.traps.method
        for number in ("kurtosis", "entry_ratio", "max_sigmas", "bulk_variance"):
            assert difference(getattr(one.traps, number), getattr(other.traps, number)) < 1e-5, (name, number)
        assert transposed or one.traps == other.traps


def test_untouched_attention_has_the_same_spectrum_in_both_layouts(smollm2_bf16: Path, smollm2_mxfp4: Path) -> None:
    llama = matrices_of(audit(smollm2_bf16))
    gpt_oss = matrices_of(audit(smollm2_mxfp4, include=("layers.*.attention.*",)))
    for layer in range(7):
        for part in "qkvo":
            one, other = llama[f"layers.{4 * layer}.attention.{part}"], gpt_oss[f"layers.{layer}.attention.{part}"]
            assert (one.spectrum, one.alpha) == (other.spectrum, other.alpha)


def test_mxfp4_experts_agree_with_what_they_were_rounded_from(smollm2_bf16: Path, smollm2_mxfp4: Path) -> None:
    llama = matrices_of(audit(smollm2_bf16))
    experts = matrices_of(audit(smollm2_mxfp4, split_fused=True, include=("layers.*.experts.*",), traps="certify"))

    pairs = [(llama[f"layers.{4 * m.layer + m.expert}.mlp.{m.id.rpartition('.')[2]}"], m) for m in experts.values()]
    assert len(pairs) == 7 * 4 * 3
    # Four-bit numbers: an error of about a tenth of each entry, and a saturation that takes two per cent of the norm
    assert_spectra_agree(pairs, spectral_norm=0.05, frobenius_norm=0.03, alpha=0.03)


@PARTS
@pytest.mark.parametrize("name", ["smollm2_fp8_128", "smollm2_fp8_64"])
def test_fp8_agrees_with_bf16(
    name: str, include: tuple[str, ...], smollm2_bf16: Path, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = SETTINGS.get(name, {})
    exact = audit(smollm2_bf16, include=include)
    rounded = audit(request.getfixturevalue(name), include=include, **settings)
    ours, theirs = matrices_of(exact), matrices_of(rounded)

    assert ours.keys() == theirs.keys()
    assert_spectra_agree(
        [(ours[key], theirs[key]) for key in ours], spectral_norm=0.005, frobenius_norm=0.002, alpha=0.01
    )
    certified = [{k for k, t in traps_of(r).items() if t.method == "certified"} for r in (exact, rounded)]
    assert len(certified[0] ^ certified[1]) <= 2  # a ratio close to its limit may fall on the other side


@pytest.mark.thorough
def test_fp8_has_the_traps_of_bf16(smollm2_fp8_128: Path) -> None:
    assert with_traps(audit(smollm2_fp8_128)) == WITH_TRAPS


@pytest.mark.skipif(find_spec("weightwatcher") is None, reason="needs the extra 'weightwatcher'")
def test_alpha_and_norms_are_weightwatchers(smollm2_bf16: Path) -> None:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    names = [f"model.layers.{layer}.{part}.weight" for layer in (0, 27) for part in parts]
    stored = read_checkpoint(smollm2_bf16)
    tensors = {name: stored[name].astype(np.float32) for name in names}
    reference = run_weightwatcher(tensors)
    ours = {matrix.tensor: matrix for matrix in audit(smollm2_bf16).matrices}

    assert reference.keys() == tensors.keys()
    for name, theirs in reference.items():
        spectrum = ours[name].spectrum
        assert spectrum is not None
        assert spectrum.spectral_norm == pytest.approx(theirs.spectral_norm, rel=1e-5)
        assert spectrum.frobenius_norm == pytest.approx(theirs.frobenius_norm, rel=1e-5)
        matrix = tensors[name]
        esd = compute_esd(lambda matrix=matrix: [matrix], matrix.shape, NumpyBackend())
        fit = fit_power_law(esd.eigenvalues, floor=FLOOR)
        assert fit is not None
        assert fit.tail == theirs.tail, name
        assert fit.alpha == pytest.approx(theirs.alpha, rel=1e-3), name
