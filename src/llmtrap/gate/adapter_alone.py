"""An adapter without its base: the exact spectrum of each update, and nothing that needs the base."""

from __future__ import annotations

import math
import time
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from llmtrap.audit.report import TOOL
from llmtrap.checkpoint.adapters import LoraPair, read_factors, singular_values
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import Skipped
from llmtrap.errors import LlmtrapError
from llmtrap.gate.document import Update
from llmtrap.gate.matching import module_kind
from llmtrap.gate.targets import OpenAdapter
from llmtrap.gate.update import update_of
from llmtrap.report.coverage import count_coverage
from llmtrap.report.document import Amount, FailedMatrix, File, Matrix, Report, Settings, SkippedTensor, Target
from llmtrap.report.summary import summarise
from llmtrap.spectra.measured import Alpha, NonFinite, Spectrum

FAMILY = "lora"


def audit_adapter(opened: OpenAdapter) -> tuple[Report, dict[str, Update]]:
    """The report of an adapter's updates ΔW = scale · B·A, and their norms.

    Each ΔW is one matrix of the report, with the spectrum of its r singular values and no traps: these are of W + ΔW.
    α of so few values is marked unreliable.
    """
    start = time.perf_counter()
    matrices, measured, failed, updates = [], [], [], {}
    for pair in opened.adapter.pairs:
        try:
            matrix, update = measure_pair(pair, opened)
        except LlmtrapError as error:
            failed.append(
                FailedMatrix(
                    id=printable(pair.module),
                    tensor=pair.b.name,
                    error=error.message,
                    parameters=pair.a.size + pair.b.size,
                    bytes=pair.a.span.size + pair.b.span.size,
                )
            )
            continue
        matrices.append(matrix)
        measured.append(pair)
        if update is not None:
            updates[matrix.id] = update
    whole = "saved whole (modules_to_save), so judged with the base only"
    left_out = [*opened.adapter.skipped]
    left_out += [Skipped.of(entry, whole, "unmeasured") for entry in opened.adapter.saved.values()]
    amount = Amount(
        count=len(measured),
        parameters=sum(pair.a.size + pair.b.size for pair in measured),
        bytes=sum(pair.a.span.size + pair.b.span.size for pair in measured),
    )
    skipped = [SkippedTensor(**asdict(item)) for item in left_out]
    coverage = count_coverage(len(opened.adapter.pairs), amount, skipped, failed)
    settings = Settings(
        traps="certify", trap_rule="tracy-widom", alpha=True, include=(), exclude=(), split_fused=False, shuffles=1,
        seed=0, backend="numpy",
    )  # fmt: skip
    seconds = time.perf_counter() - start
    report = Report(
        tool=TOOL, target=_target(opened, matrices), settings=settings, coverage=coverage,
        summary=summarise(matrices, coverage, settings, round(seconds, 3), 0), matrices=tuple(matrices),
    )  # fmt: skip
    return report, updates


def measure_pair(pair: LoraPair, opened: OpenAdapter) -> tuple[Matrix, Update | None]:
    """The update of one module, as a matrix of the report; no update where a factor holds what is no number."""
    start = time.perf_counter()
    left, right = read_factors(pair, opened.source, opened.adapter.file.name)
    name = printable(pair.module)
    values = None if _broken(left, right) else singular_values(left, right)
    update = None if values is None else update_of(values, name)
    matrix = Matrix(
        id=name, tensor=pair.b.name, layer=None, role=module_kind(name).rpartition(".")[2], expert=None,
        shape=pair.shape, encoding=f"{pair.b.dtype} LoRA (rank {pair.rank}, scale {pair.scale:.9g})",
        alpha=None if values is None else _alpha(values),
        spectrum=None if values is None else _spectrum(values, min(pair.shape)),
        traps=None, non_finite=_broken(left, right), seconds=round(time.perf_counter() - start, 4),
    )  # fmt: skip
    return matrix, update


def _broken(left: NDArray[np.float64], right: NDArray[np.float64]) -> NonFinite | None:
    """NaN and infinite entries of both factors; the place is that of the first, in its factor."""
    for factor in (left, right):
        bad = ~np.isfinite(factor)
        if bad.any():
            row, column = (int(place[0]) for place in np.nonzero(bad))
            nan = int(np.isnan(left).sum() + np.isnan(right).sum())
            inf = int(np.isinf(left).sum() + np.isinf(right).sum())
            return NonFinite(nan=nan, inf=inf, row=row, column=column)
    return None


def _alpha(values: NDArray[np.float64]) -> Alpha:
    return Alpha(
        value=None, sigma=None, xmin=None, ks=None, tail=0, band=None, reliable=False,
        reason=f"an update of rank {len(values)} has too few singular values for a fit",
    )  # fmt: skip


def _spectrum(values: NDArray[np.float64], side: int) -> Spectrum:
    eigenvalues = values**2
    largest, total = float(eigenvalues[0]), float(eigenvalues.sum())
    share = eigenvalues[eigenvalues > 0] / total if total > 0 else eigenvalues[:0]
    return Spectrum(
        spectral_norm=math.sqrt(largest),
        frobenius_norm=math.sqrt(total),
        stable_rank=total / largest if largest > 0 else 0.0,
        hard_rank=int((eigenvalues > 1e-7 * largest).sum()) if largest > 0 else 0,
        entropy=float(-(share * np.log(share)).sum() / math.log(side)) if side > 1 else 0.0,
        alpha_weighted=None,
        log10_spectral_norm=math.log10(largest) / 2 if largest > 0 else None,
        rank_deficient=len(values) < side,
        precision="float64",
        histogram=None,
    )


def _target(opened: OpenAdapter, matrices: list[Matrix]) -> Target:
    identity, file = opened.source.identity, opened.adapter.file
    return Target(
        name=identity.shown_name, kind=identity.kind, revision=identity.revision, family=FAMILY,
        files=(File(path=file.name, bytes=file.size, digest=file.digest),),
        encodings=tuple(sorted({matrix.encoding for matrix in matrices})),
    )  # fmt: skip
