"""One run looked at closely: a checkpoint of each phase, its spectra, its images, and its traps taken out."""

from __future__ import annotations

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.document import Ablation, CaseStudy, Confusion, Picture, RowSimilarity, SpectrumPicture
from llmtrap.calibrate.history import History
from llmtrap.calibrate.measure_checkpoint import analyse_matrix
from llmtrap.calibrate.networks import initial_weights
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.prototypes import pictures, row_similarity
from llmtrap.calibrate.run_files import check_tensors
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.transformers import Weights
from llmtrap.calibrate.trap_ablation import AblationSetup, ablate_layer
from llmtrap.spectra import log_histogram


def study(history: History, folder: RunFolder, data: TaskData) -> CaseStudy:
    """Look closely at the representative checkpoint of each phase that the run went through."""
    recipe, seed = history.recipe, history.seed
    shown: list[Picture] = []
    rows: list[RowSimilarity] = []
    ablations: list[Ablation] = []
    spectra: list[SpectrumPicture] = []
    confusions: list[Confusion] = []
    initial = initial_weights(recipe, seed)
    for phase in PHASES:
        measured = history.representative(phase)
        if measured is None:
            continue
        step = measured.step
        weights = folder.load_weights(step)
        check_tensors(weights, initial, folder.weights_file(step))
        for name in history.scored:
            if (picture := _spectrum(name, weights, seed, phase, step)) is not None:
                spectra.append(picture)
        laboratory = AblationSetup(recipe, weights, data, seed)
        for name in history.scored:
            ablations.extend(ablate_layer(laboratory, name, phase, step))
        if data.side:
            shown.extend(pictures(weights, data, phase, step))
            rows.append(row_similarity(weights, initial, data, phase, step))
            confusions.append(Confusion(phase=phase, step=step, counts=laboratory.confusion()))
    return CaseStudy(
        task=recipe.task,
        arm=recipe.arm,
        seed=seed,
        pictures=tuple(shown),
        rows=tuple(rows),
        ablations=tuple(ablations),
        spectra=tuple(spectra),
        confusions=tuple(confusions),
    )


def _spectrum(name: str, weights: Weights, seed: int, phase: str, step: int) -> SpectrumPicture | None:
    """The two spectra of a matrix; None where one has no eigenvalue but 0."""
    result = analyse_matrix(name, weights[name].numpy(), seed)
    esd, traps = result.esd, result.traps
    assert esd is not None  # noqa: S101 - asked for
    assert traps is not None  # noqa: S101 - asked for
    assert traps.spectrum is not None  # noqa: S101 - always shuffled
    original, shuffled = log_histogram(esd.eigenvalues), log_histogram(traps.spectrum)
    if original is None or shuffled is None:
        return None
    return SpectrumPicture(
        phase=phase,
        step=step,
        layer=name.removesuffix(".weight"),
        original=original,
        shuffled=shuffled,
        edge=float(traps.edge or 0.0),
        xmin=None if esd.fit is None else esd.fit.xmin,
        alpha=None if esd.fit is None else esd.fit.alpha,
    )
