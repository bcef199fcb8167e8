"""What the followed runs show: measures by phase, how well each separates, what thresholds flag, and exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmtrap.calibrate.document import CounterExample, Interval, Onset, PhaseRow, RateRow, SeparationRow
from llmtrap.calibrate.formatting import signed
from llmtrap.calibrate.history import History
from llmtrap.calibrate.measurement import Layer, Measurement
from llmtrap.calibrate.phases import PHASES, Phase
from llmtrap.calibrate.scores import SCORES, Score
from llmtrap.calibrate.separation import Estimate, RunScores, clustered_area, clustered_rate, threshold_at

Groups = dict[str, list[History]]

_MANY_TRAPS = 3


def groups(histories: Iterable[History]) -> Groups:
    """Runs without weight decay, runs with it, and all together where there are both."""
    runs = list(histories)
    without = [run for run in runs if not run.decayed]
    with_decay = [run for run in runs if run.decayed]
    found: Groups = {}
    if without:
        found["without weight decay"] = without
    if with_decay:
        found["with weight decay"] = with_decay
    if without and with_decay:
        found["all"] = runs
    return found


# -- the table of phases ---------------------------------------------------------------------------------------------


def phase_rows(histories: Sequence[History]) -> tuple[PhaseRow, ...]:
    """Each measure in each phase, mean ± deviation over the runs of an arm, of one representative checkpoint a run."""
    rows: list[PhaseRow] = []
    for arm in dict.fromkeys(history.recipe.arm for history in histories):
        runs = [history for history in histories if history.recipe.arm == arm]
        for measure, value in _columns(runs[0]).items():
            cells = {str(phase): _cell(runs, phase, value) for phase in PHASES}
            rows.append(PhaseRow(arm=arm, measure=measure, cells=cells))
    return tuple(rows)


def _cell(
    runs: Sequence[History], phase: Phase, value: Callable[[History, Measurement], float]
) -> tuple[float, float, int] | None:
    shown = [(run, run.representative(phase)) for run in runs]
    numbers = [value(run, measured) for run, measured in shown if measured is not None]
    numbers = [number for number in numbers if np.isfinite(number)]
    if not numbers:
        return None
    spread = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0
    return float(np.mean(numbers)), spread, len(numbers)


def _columns(history: History) -> dict[str, Callable[[History, Measurement], float]]:
    columns: dict[str, Callable[[History, Measurement], float]] = {
        "step": lambda _, m: float(m.step),
        "train accuracy": lambda _, m: m.train_accuracy,
        "test accuracy": lambda _, m: m.test_accuracy,
        "train loss": lambda _, m: m.train_loss,
        "test loss": lambda _, m: m.test_loss,
    }
    for index, layer in enumerate(history.measurements[0].layers):
        short = layer.name.removesuffix(".weight")
        for field, words in (
            ("alpha", "α"),
            ("alpha_ks", "KS distance of the power law"),
            ("tail", "eigenvalues in the tail"),
            ("traps", "traps"),
            ("centred", "centred traps"),
            ("mean_shift", "mean-shift traps"),
            ("edge_ratio", "λ_max / λ₊, shuffled"),
            ("centred_edge_ratio", "λ_max / λ₊, shuffled and centred"),
            ("kurtosis", "kurtosis"),
            ("max_sigmas", "max |w − m| / s"),
            ("mp_ks", "KS distance from Marchenko-Pastur"),
            ("mp_p", "its p-value"),
            ("entropy", "absolute weight entropy"),
        ):
            columns[f"{short}: {words}"] = _field(index, field)
    columns["mean α"] = _mean_alpha
    columns |= {
        "l2 norm": lambda _, m: m.l2,
        "local circuit complexity": lambda _, m: m.circuit_complexity,
        "activation sparsity": lambda _, m: float(np.mean(m.sparsity)),
        "units that never fire": lambda _, m: float(sum(m.dead)),
        "largest class share on Gaussian probes": lambda _, m: m.class_share[min(1, len(m.class_share) - 1)],
    }
    return columns


def _mean_alpha(history: History, measured: Measurement) -> float:
    """Over the layers that count."""
    alphas = [layer.alpha for layer in history.layers(measured) if layer.alpha is not None]
    return float(np.mean(alphas)) if alphas else float("nan")


def _field(index: int, field: str) -> Callable[[History, Measurement], float]:
    def value(_: History, measured: Measurement) -> float:
        layer: Layer = measured.layers[index]
        found = getattr(layer, field)
        return float("nan") if found is None else float(found)

    return value


# -- separation ------------------------------------------------------------------------------------------------------


def separation_rows(histories: Sequence[History]) -> tuple[SeparationRow, ...]:
    """For each measure, its AUC for anti-grokking against the other two phases, by group of arms."""
    rows: list[SeparationRow] = []
    for arms, runs in groups(histories).items():
        for score in SCORES:
            anti, grok, pre = (_values(runs, score, phase) for phase in ("anti-grok", "grok", "pre-grok"))
            if not sum(map(len, anti)):
                continue
            rows.append(
                SeparationRow(
                    task=runs[0].recipe.task,
                    arms=arms,
                    measure=score.key,
                    label=score.label,
                    kind=score.kind,
                    sign=score.sign,
                    against_grok=_interval(clustered_area(list(map(RunScores, anti, grok)))),
                    against_pre=_interval(clustered_area(list(map(RunScores, anti, pre)))),
                    runs=len(runs),
                    anti=sum(map(len, anti)),
                    grok=sum(map(len, grok)),
                    pre=sum(map(len, pre)),
                )
            )
    return tuple(rows)


def rate_rows(histories: Sequence[History]) -> tuple[RateRow, ...]:
    """What each threshold flags in each phase.

    Where theory gives a measure no threshold, the one that flags 5 % of these runs' grokked checkpoints is taken: it
    is chosen after looking, and the row says so.
    """
    rows: list[RateRow] = []
    for arms, runs in groups(histories).items():
        for score in SCORES:
            by_phase = {phase: _values(runs, score, phase) for phase in PHASES}
            grokked = np.concatenate(by_phase["grok"])
            limits: list[tuple[float, bool]] = [(score.sign * limit, True) for limit in score.thresholds]
            if not limits and len(grokked):
                limits = [(threshold_at(grokked, 0.05), False)]
            for limit, theory in limits:
                rows.append(_rate_row(arms, runs, score, limit, theory, by_phase))
    return tuple(rows)


def _rate_row(
    arms: str,
    runs: list[History],
    score: Score,
    limit: float,
    theory: bool,
    by_phase: dict[Phase, list[NDArray[np.float64]]],
) -> RateRow:
    # A low-is-bad threshold is strict (α < 2), a count is reached (≥ 1).
    def rate(phase: Phase) -> Interval | None:
        hits = [values > limit if score.sign < 0 and theory else values >= limit for values in by_phase[phase]]
        return _interval(clustered_rate(hits))

    shown = score.sign * limit
    sign = "≥" if score.sign > 0 else ("<" if theory else "≤")
    return RateRow(
        task=runs[0].recipe.task,
        arms=arms,
        measure=score.key,
        threshold=f"{score.label} {sign} {shown:.4g}",
        origin="theory" if theory else "5 % of grokked checkpoints, in these runs",
        anti=rate("anti-grok"),
        grok=rate("grok"),
        pre=rate("pre-grok"),
    )


def _values(runs: Sequence[History], score: Score, phase: Phase) -> list[NDArray[np.float64]]:
    """Signed scores of a phase, a vector a run; checkpoints where the measure is not defined are left out."""
    vectors = [np.array([score.signed(run, m) for m in run.phase(phase)], dtype=np.float64) for run in runs]
    return [vector[np.isfinite(vector)] for vector in vectors]


def _interval(estimate: Estimate | None) -> Interval | None:
    return None if estimate is None else Interval(value=estimate.value, low=estimate.low, high=estimate.high)


# -- exceptions ------------------------------------------------------------------------------------------------------


def counter_examples(histories: Sequence[History]) -> tuple[CounterExample, ...]:
    """Runs that end with traps and without a collapse, or with a collapse and without traps."""
    kinds = [(history, kind) for history in histories if (kind := _exception(history)) is not None]
    return tuple(
        CounterExample(
            task=history.recipe.task,
            arm=history.recipe.arm,
            seed=history.seed,
            kind=kind,
            words=(
                f"at step {history.last.step:,}: {history.centred(history.last)} centred traps, "
                f"test {history.last.test_accuracy:.3f} after a peak of {history.peak.test_accuracy:.3f} "
                f"({signed(history.last.test_accuracy - history.peak.test_accuracy)}), "
                f"train {history.last.train_accuracy:.3f}"
            ),
        )
        for history, kind in kinds
    )


def _exception(history: History) -> Literal["traps without collapse", "collapse without traps"] | None:
    end, traps = history.labelled.phases[-1], history.centred(history.last)
    if end == "grok" and traps >= _MANY_TRAPS:
        return "traps without collapse"
    return "collapse without traps" if end == "anti-grok" and traps == 0 else None


def onsets(histories: Sequence[History]) -> tuple[Onset, ...]:
    """For each run that collapses, the first centred trap after its peak, and what was lost by then.

    A run with centred traps at its peak has no such onset.
    """
    found: list[Onset] = []
    for history in histories:
        if not history.labelled.members("anti-grok"):
            continue
        peak = history.peak
        after = history.measurements[history.labelled.peak + 1 :]
        early = history.centred(peak)
        first = None if early else next((m for m in after if history.centred(m)), None)
        found.append(
            Onset(
                task=history.recipe.task,
                arm=history.recipe.arm,
                seed=history.seed,
                peak_step=peak.step,
                traps_at_peak=early,
                trap_step=None if first is None else first.step,
                lost=None if first is None else peak.test_accuracy - first.test_accuracy,
            )
        )
    return tuple(found)
