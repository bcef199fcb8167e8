"""What the followed runs show: measures by phase, how well each separates, what thresholds flag, and exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmtrap.calibrate.document import CounterExample, Onset, PhaseRow, RateRow, SeparationRow
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.formatting import signed
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.phases import PHASES, Phase
from llmtrap.calibrate.scores import FIRST_COLUMNS, LAST_COLUMNS, LAYER_COLUMNS, SCORES, Score, Value
from llmtrap.calibrate.separation import Interval, clustered_area, clustered_rate, threshold_at

Vectors = list[NDArray[np.float64]]

_MANY_TRAPS = 3


def groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs without weight decay, runs with it, and all together where there are both."""
    parts = {
        "without weight decay": [run for run in runs if not run.decayed],
        "with weight decay": [run for run in runs if run.decayed],
    }
    found = {arms: members for arms, members in parts.items() if members}
    return found | ({"all": list(runs)} if len(found) == 2 else {})


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of the same arm together, in their order."""
    return {arm: [run for run in runs if run.recipe.arm == arm] for arm in dict.fromkeys(r.recipe.arm for r in runs)}


# -- the table of phases ---------------------------------------------------------------------------------------------


def phase_rows(runs: Sequence[Run]) -> tuple[PhaseRow, ...]:
    """Each measure in each phase, mean ± deviation over the runs of an arm, of one representative checkpoint a run."""
    return tuple(
        PhaseRow(arm=arm, measure=measure, cells={str(phase): _cell(members, phase, value) for phase in PHASES})
        for arm, members in by_arm(runs).items()
        for measure, value in _columns(members[0]).items()
    )


def _columns(run: Run) -> dict[str, Value]:
    layers = {
        f"{layer.short}: {words}": _of_layer(index, words)
        for index, layer in enumerate(run.checkpoints[0].layers)
        for words in LAYER_COLUMNS
    }
    return FIRST_COLUMNS | layers | LAST_COLUMNS


def _of_layer(index: int, words: str) -> Value:
    def value(_: Run, measured: Measurement) -> float:
        found = LAYER_COLUMNS[words](measured.layers[index])
        return float("nan") if found is None else float(found)

    return value


def _cell(runs: Sequence[Run], phase: Phase, value: Value) -> tuple[float, float, int] | None:
    shown = [(run, run.representative(phase)) for run in runs]
    numbers = [value(run, measured) for run, measured in shown if measured is not None]
    numbers = [number for number in numbers if np.isfinite(number)]
    if not numbers:
        return None
    return float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0, len(numbers)


# -- separation ------------------------------------------------------------------------------------------------------


def separation_rows(runs: Sequence[Run]) -> tuple[SeparationRow, ...]:
    """For each measure, its AUC for anti-grokking against the other two phases, by group of arms."""
    rows: list[SeparationRow] = []
    for arms, members in groups(runs).items():
        for score in SCORES:
            anti, grok, pre = (_values(members, score, phase) for phase in ("anti-grok", "grok", "pre-grok"))
            if not sum(map(len, anti)):
                continue
            rows.append(
                SeparationRow(
                    task=members[0].recipe.task, arms=arms, measure=score.key, label=score.label, kind=score.kind,
                    sign=score.sign, against_grok=clustered_area(anti, grok), against_pre=clustered_area(anti, pre),
                    runs=len(members), anti=sum(map(len, anti)), grok=sum(map(len, grok)), pre=sum(map(len, pre)),
                )
            )  # fmt: skip
    return tuple(rows)


def rate_rows(runs: Sequence[Run]) -> tuple[RateRow, ...]:
    """What each threshold flags in each phase.

    Where theory gives a measure no threshold, the one that flags 5 % of these runs' grokked checkpoints is taken: it
    is chosen after looking, and the row says so.
    """
    rows: list[RateRow] = []
    for arms, members in groups(runs).items():
        for score in SCORES:
            by_phase = {phase: _values(members, score, phase) for phase in PHASES}
            grokked = np.concatenate(by_phase["grok"])
            limits = [(score.sign * limit, True) for limit in score.thresholds]
            if not limits and len(grokked):
                limits = [(threshold_at(grokked, 0.05), False)]
            for limit, theory in limits:
                rows.append(_rate_row(arms, members[0].recipe.task, score, limit, theory, by_phase))
    return tuple(rows)


def _rate_row(
    arms: str, task: str, score: Score, limit: float, theory: bool, by_phase: dict[Phase, Vectors]
) -> RateRow:
    # A low-is-bad threshold is strict (α < 2), a count is reached (≥ 1).
    strict = score.sign < 0 and theory

    def rate(phase: Phase) -> Interval | None:
        return clustered_rate([values > limit if strict else values >= limit for values in by_phase[phase]])

    sign = "≥" if score.sign > 0 else ("<" if theory else "≤")
    return RateRow(
        task=task, arms=arms, measure=score.key, threshold=f"{score.label} {sign} {score.sign * limit:.4g}",
        origin="theory" if theory else "5 % of grokked checkpoints, in these runs",
        anti=rate("anti-grok"), grok=rate("grok"), pre=rate("pre-grok"),
    )  # fmt: skip


def _values(runs: Sequence[Run], score: Score, phase: Phase) -> Vectors:
    """Signed scores of a phase, a vector a run; checkpoints where the measure is not defined are left out."""
    vectors = [np.array([score.signed(run, m) for m in run.phase(phase)], dtype=np.float64) for run in runs]
    return [vector[np.isfinite(vector)] for vector in vectors]


# -- exceptions ------------------------------------------------------------------------------------------------------


def of_run(run: Run) -> dict[str, Any]:
    """Which run something is said of."""
    return {"task": run.recipe.task, "arm": run.recipe.arm, "seed": run.seed}


def counter_examples(runs: Sequence[Run]) -> tuple[CounterExample, ...]:
    """Runs that end with traps and without a collapse, or with a collapse and without traps."""
    kinds = [(run, kind) for run in runs if (kind := _exception(run)) is not None]
    return tuple(CounterExample(**of_run(run), kind=kind, words=_end(run)) for run, kind in kinds)


def _end(run: Run) -> str:
    last, peak = run.last, run.peak.test_accuracy
    return (
        f"at step {last.step:,}: {run.centred(last)} centred traps, test {last.test_accuracy:.3f} after a peak of "
        f"{peak:.3f} ({signed(-run.lost)}), train {last.train_accuracy:.3f}"
    )


def _exception(run: Run) -> Literal["traps without collapse", "collapse without traps"] | None:
    end, traps = run.phases[-1], run.centred(run.last)
    if end == "grok" and traps >= _MANY_TRAPS:
        return "traps without collapse"
    return "collapse without traps" if end == "anti-grok" and traps == 0 else None


def onsets(runs: Sequence[Run]) -> tuple[Onset, ...]:
    """For each run that collapses, the first centred trap after its peak, and what was lost by then.

    A run with centred traps at its peak has no such onset.
    """
    found: list[Onset] = []
    for run in runs:
        if not run.labelled.members("anti-grok"):
            continue
        peak, early = run.peak, run.centred(run.peak)
        after = run.checkpoints[run.labelled.peak + 1 :]
        first = None if early else next((m for m in after if run.centred(m)), None)
        found.append(
            Onset(
                **of_run(run), peak_step=peak.step, traps_at_peak=early,
                trap_step=None if first is None else first.step,
                lost=None if first is None else peak.test_accuracy - first.test_accuracy,
            )
        )  # fmt: skip
    return tuple(found)
