"""One run looked at closely: a checkpoint of each phase, its spectra, its images, and its traps taken out."""

from __future__ import annotations

from typing import Any

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.document import CaseStudy, Confusion, SpectrumPicture
from llmtrap.calibrate.findings import of_run
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measure_checkpoint import analyse_matrix, matrix_id
from llmtrap.calibrate.networks import initial_weights
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.prototypes import pictures, row_similarity
from llmtrap.calibrate.rundir import RunFolder, check_tensors
from llmtrap.calibrate.transformers import Weights
from llmtrap.calibrate.trap_ablation import AblationSetup, ablate_layer
from llmtrap.spectra import summarise


def study(run: Run, folder: RunFolder, data: TaskData) -> CaseStudy:
    """Look closely at the representative checkpoint of each phase that the run went through."""
    recipe, seed = run.recipe, run.seed
    found: dict[str, list[Any]] = {part: [] for part in ("pictures", "rows", "ablations", "spectra", "confusions")}
    initial = initial_weights(recipe, seed)
    for phase in PHASES:
        measured = run.representative(phase)
        if measured is None:
            continue
        step = measured.step
        weights = folder.load_weights(step)
        check_tensors(weights, initial, folder.weights_file(step))
        spectra = [_spectrum(name, weights, seed, phase, step) for name in run.scored]
        found["spectra"] += [picture for picture in spectra if picture is not None]
        setup = AblationSetup(recipe, weights, data, seed)
        for name in run.scored:
            found["ablations"] += ablate_layer(setup, name, phase, step)
        if data.side:
            found["pictures"] += pictures(weights, data, phase, step)
            found["rows"].append(row_similarity(weights, initial, data, phase, step))
            found["confusions"].append(Confusion(phase=phase, step=step, counts=setup.confusion()))
    return CaseStudy.model_validate(of_run(run) | found)


def _spectrum(name: str, weights: Weights, seed: int, phase: str, step: int) -> SpectrumPicture | None:
    """The two spectra of a matrix; None where one has no eigenvalue but 0."""
    found = summarise(analyse_matrix(name, weights[name].numpy(), seed)[0])
    alpha, spectrum, traps = found.alpha, found.spectrum, found.traps
    if alpha is None or spectrum is None or spectrum.histogram is None or traps is None or traps.shuffled is None:
        return None
    return SpectrumPicture(
        phase=phase, step=step, layer=matrix_id(name), original=spectrum.histogram, shuffled=traps.shuffled.histogram,
        edge=traps.edge or 0.0, xmin=alpha.xmin, alpha=alpha.value,
    )  # fmt: skip
