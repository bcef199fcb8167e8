"""Damage done to healthy models: one matrix or one layer changed, and the whole held against the others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path

import numpy as np
from tests.support import edits

import llmtrap
from llmtrap.calibrate import grokking_demo_checkpoints
from llmtrap.report.document import Matrix, Report
from studies.reference.audits import audit
from studies.reference.models import Source

SIGMAS = (30.0, 100.0, 300.0, 1000.0)
ROLES = ("attention.q", "attention.o", "mlp.up", "mlp.down")


@dataclass(frozen=True)
class Changed:
    """A changed model: what was done, and its report."""

    change: str
    report: Report


def corrupted(source: Source) -> Iterator[Changed]:
    """One entry of one matrix of a deep layer set to so many standard deviations, for each role and size."""
    whole = audit(source)
    depth = max(m.layer for m in whole.matrices if m.layer is not None)
    for role in ROLES:
        layer = round(0.7 * depth)
        matrix = next((m for m in whole.matrices if m.role == role and m.layer == layer), None)
        if matrix is None:
            continue
        for sigmas in SIGMAS:
            yield Changed(f"{role}, {sigmas:g} s", _spliced(source, [matrix], lambda _, s=sigmas: _one_entry(s)))


def flipped(source: Source) -> Iterator[Changed]:
    """One exponent bit of one entry of a deep layer flipped: the fourth, which multiplies it by 2^16 or divides it."""
    whole = audit(source)
    depth = max(m.layer for m in whole.matrices if m.layer is not None)
    matrix = next(m for m in whole.matrices if m.role == "mlp.down" and m.layer == round(0.7 * depth))
    yield Changed("an exponent bit (× 2^16)", _spliced(source, [matrix], lambda _: _times(2.0**16)))


def random_layer(source: Source) -> Iterator[Changed]:
    """Every matrix of a middle layer drawn anew, Gaussian, with the variance that it had."""
    whole = audit(source)
    depth = max(m.layer for m in whole.matrices if m.layer is not None)
    layer = round(0.5 * depth)
    held = [m for m in whole.matrices if m.layer == layer and m.part == whole.matrices[0].part]
    yield Changed(f"layer {layer} random", _spliced(source, held, _gaussian))


def grokking() -> dict[str, Report]:
    """The audits of the demo's three networks: before it generalises, at its best, collapsed."""
    found = {}
    for folder, phase in zip(grokking_demo_checkpoints(), ("pre-grok", "grok", "anti-grok"), strict=True):
        with as_file(folder.joinpath("model.safetensors")) as file:
            found[phase] = llmtrap.audit(str(file))
    return found


def _one_entry(sigmas: float) -> edits.Edit:
    def change(w: edits.Floats) -> edits.Floats:
        w[w.shape[0] // 3, w.shape[1] // 2] = w.mean() + sigmas * w.std()
        return w

    return change


def _times(factor: float) -> edits.Edit:
    def change(w: edits.Floats) -> edits.Floats:
        w[w.shape[0] // 3, w.shape[1] // 2] *= factor
        return w

    return change


def _gaussian(seed: int) -> edits.Edit:
    return lambda w: np.random.default_rng(seed).normal(w.mean(), w.std(), w.shape).astype(np.float32)


def _spliced(source: Source, matrices: list[Matrix], change: Callable[[int], edits.Edit]) -> Report:
    """The whole report with some matrices measured again after a change."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = edits.copy_of(source.target(), Path(scratch) / "copy")
        for seed, matrix in enumerate(matrices):
            edits.edit(copy, matrix.tensor, change(seed))
        ids = tuple(matrix.id for matrix in matrices)
        again = {m.id: m for m in llmtrap.audit(str(copy), llmtrap.AuditSettings(include=ids)).matrices}
    whole = audit(source)
    if set(again) != set(ids):
        raise RuntimeError(f"{source.name}: {set(ids) - set(again)} not measured again")
    return whole.model_copy(update={"matrices": tuple(again.get(m.id, m) for m in whole.matrices)})
