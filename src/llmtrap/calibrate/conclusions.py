"""What the numbers say, in sentences: computed, so that they can come out against the detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmtrap.calibrate.document import Check, CounterExample, Onset, RateRow, Run, SeparationRow
from llmtrap.calibrate.formatting import percent, spread
from llmtrap.calibrate.history import History
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.scores import score
from llmtrap.report.formatting import duration

SMALL_NETWORKS = (
    "These are small networks on small data: the rates are theirs, and say nothing of the rates on language models."
)
# An AUC below this is the other way round: traps mark the healthy checkpoints.
_OPPOSITE = 0.4
# One below this tells next to nothing, so that no measure is said to do as well.
_USEFUL = 0.6
_WITHOUT = "without weight decay"
_WITH = "with weight decay"


def conclude(
    histories: Sequence[History],
    checks: Sequence[Check],
    separation: Sequence[SeparationRow],
    rates: Sequence[RateRow],
    exceptions: Sequence[CounterExample],
    onsets: Sequence[Onset],
) -> tuple[str, ...]:
    """The conclusions of a calibration, most important first."""
    return (
        *_lag(onsets),
        *_rivals(separation),
        *_acceptance(checks),
        *_provoked(histories),
        *_far(histories),
        *_detector(rates),
        *_exceptions(histories, exceptions),
        *_unseen(histories, exceptions),
        *_phases(histories),
    )


def unfinished(runs: Sequence[Run]) -> tuple[str, ...]:
    """How far each run that is still under way has come, how fast it was, and what the rest would take."""
    return tuple(
        f"Arm {run.arm} seed {run.seed} stands at step {run.steps:,} of {run.planned_steps:,}: "
        f"{run.steps_per_second:,.0f} steps a CPU second in the mean, {duration(run.seconds)} so far; at the pace of "
        f"its last tenth the rest takes about {duration(run.remaining_seconds)}."
        for run in runs
        if not run.complete
    )


def _phases(histories: Sequence[History]) -> list[str]:
    found = []
    for arm in dict.fromkeys(history.recipe.arm for history in histories):
        runs = [history for history in histories if history.recipe.arm == arm]
        seen = {phase: sum(bool(run.labelled.members(phase)) for run in runs) for phase in PHASES}
        peaks = np.array([run.peak.test_accuracy for run in runs])
        ends = np.array([run.last.test_accuracy for run in runs])
        fits = np.array([run.last.train_accuracy for run in runs])
        when = "at the end" if all(run.complete for run in runs) else "where it stands"
        found.append(
            f"Arm {arm} ({len(runs)} {'run' if len(runs) == 1 else 'runs'}): pre-grokking seen in {seen['pre-grok']}, "
            f"grokking in {seen['grok']}, anti-grokking in {seen['anti-grok']}; test accuracy "
            f"{_range(peaks)} at its peak and {_range(ends)} {when} (step {max(r.last.step for r in runs):,}), "
            f"training accuracy {_range(fits)} {when}."
        )
    return found


def _range(values: NDArray[np.float64]) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3f}" if len(values) == 1 else f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def _acceptance(checks: Sequence[Check]) -> list[str]:
    if not checks:
        return []
    runs = {(check.arm, check.seed) for check in checks}
    good = {run for run in runs if all(c.passed for c in checks if (c.arm, c.seed) == run)}
    text = f"The acceptance rules hold on {len(good)} of {len(runs)} runs that have rules."
    failed = [f"{c.arm} seed {c.seed}: {c.rule} (found: {c.found})" for c in checks if not c.passed]
    return [text + (f" Not met: {'; '.join(failed)}." if failed else "")]


def _rate(rates: Sequence[RateRow], arms: str, measure: str, limit: str) -> RateRow | None:
    return next((r for r in rates if r.arms == arms and r.measure == measure and r.threshold.endswith(limit)), None)


def _detector(rates: Sequence[RateRow]) -> list[str]:
    found = []
    for arms in (_WITHOUT, _WITH):
        row = _rate(rates, arms, "centred", "≥ 1")
        if row is None:
            continue
        phases = (("anti-grokking", row.anti), ("grokked", row.grok), ("pre-grokking", row.pre))
        shares = [f"{percent(share)} of {phase} checkpoints" for phase, share in phases if share is not None]
        found.append(f"In arms {arms}, at least one centred trap is seen in {' and in '.join(shares)}.")
    every = _rate(rates, _WITHOUT, "traps", "≥ 1")
    if every is not None and every.grok is not None:
        found.append(
            f"A trap of any cause, mean shifts included, is seen in {percent(every.grok)} of the grokked checkpoints "
            f"without weight decay: "
            + ("such a count says nothing of overfitting." if every.grok.value >= 0.5 else "few, in these runs.")
        )
    alpha = _rate(rates, _WITHOUT, "alpha_reliable", "< 2")
    if alpha is not None:
        found.append(
            f"A reliable α below 2 is seen in {percent(alpha.anti)} of anti-grokking, {percent(alpha.grok)} of grokked "
            f"and {percent(alpha.pre)} of pre-grokking checkpoints without weight decay."
        )
    return found


def _rivals(separation: Sequence[SeparationRow]) -> list[str]:
    found = []
    for arms in (_WITHOUT, "all"):
        rows = {row.measure: row for row in separation if row.arms == arms and row.against_grok is not None}
        traps = rows.get("centred")
        if traps is None or traps.against_grok is None:
            continue
        mark = traps.against_grok.value
        least = max(mark - 0.005, _USEFUL)
        better = [
            f"{row.label} ({row.against_grok.value:.2f})"
            for row in rows.values()
            if row.measure != "centred" and row.against_grok is not None and row.against_grok.value >= least
        ]
        found.append(
            f"Centred traps tell anti-grokking from grokked checkpoints with an AUC of {mark:.2f} "
            f"({'arms ' + arms if arms != 'all' else 'all arms'}). "
            + ("They say the opposite of what they are held to say. " if mark < _OPPOSITE else "")
            + (f"As well or better, alone: {'; '.join(better)}." if better else "No other measure does as well.")
        )
    return found


def _lag(onsets: Sequence[Onset]) -> list[str]:
    if not onsets:
        return []
    found = []
    early = sum(onset.traps_at_peak > 0 for onset in onsets)
    if early:
        found.append(
            f"Of {len(onsets)} runs that collapse, {early} have centred traps at their peak already: there traps mark "
            "the healthy network, and foretell nothing."
        )
    later = [onset for onset in onsets if not onset.traps_at_peak]
    lost = [onset.lost for onset in later if onset.lost is not None]
    if not later:
        return found
    never = len(later) - len(lost)
    text = f"Of {len(later)} runs that collapse, {len(lost)} show a centred trap after their peak"
    if lost:
        middle = 100 * float(np.median(lost))
        text += (
            f"; when the first is seen, {middle:.0f} points of test accuracy are already lost in the median "
            f"({100 * min(lost):.0f} to {100 * max(lost):.0f})"
            + (
                ": traps follow the collapse, they do not foretell it"
                if middle >= 1
                else ": they come while nothing is lost"
            )
        )
    return [*found, text + (f"; {never} show none." if never else ".")]


def _provoked(histories: Sequence[History]) -> list[str]:
    """What the collapse of the sums is and is not, and where it goes against the paper."""
    runs = [run for run in histories if run.recipe.weight_decay_until is not None]
    fallen = [(run, measured) for run in runs for measured in run.phase("anti-grok")]
    if not fallen:
        return []
    healthy = [(run, measured) for run in runs for measured in run.phase("grok")]
    found = []
    for pairs in (healthy, fallen):
        traps = spread([float(run.centred(measured)) for run, measured in pairs], ".0f")
        found.append(f"{traps} centred traps and a mean α of {spread([_mean_alpha(*pair) for pair in pairs], '.1f')}")
    return [
        "This collapse is provoked: weight decay is switched off after grokking, and float32 then rounds the gradients "
        "of examples that are known with a large margin. It is not the papers' recipe, which they do not give. Grokked "
        f"checkpoints of these arms have {found[0]}, collapsed ones {found[1]}; in the paper grokked ones have no trap "
        "and a mean α of 2.0, collapsed ones three to seven in each matrix and 3.9."
    ]


def _mean_alpha(run: History, measured: Measurement) -> float:
    return score("alpha_mean").value(run, measured)


def _far(histories: Sequence[History]) -> list[str]:
    """Accuracy outside the training distribution, for the task that has such examples."""
    ends = [run.last.far_accuracy for run in histories if run.last.far_accuracy is not None]
    if not ends:
        return []
    best = [max(m.far_accuracy or 0.0 for m in run.measurements) for run in histories]
    return [
        f"On facts made of two that were both set apart (out of distribution) accuracy ends at {spread(ends)} and is "
        f"never above {max(best):.3f}. No phase and no measure here is held against that."
    ]


_HARD_CASES = {"wd0.1": "traps without collapse", "eps1e-5": "collapse without traps"}


def _unseen(histories: Sequence[History], exceptions: Sequence[CounterExample]) -> list[str]:
    """The arms that are there as counter-examples and were none: that speaks for the detector, and is said too."""
    seen = {(item.arm, item.seed, item.kind) for item in exceptions}
    return [
        f"Arm {run.recipe.arm} seed {run.seed} is there for {kind} and did not show it: "
        f"{run.centred(run.last)} centred traps, test {run.last.test_accuracy:.3f} after a peak of "
        f"{run.peak.test_accuracy:.3f}, train {run.last.train_accuracy:.3f}."
        for run in histories
        if run.complete
        and (kind := _HARD_CASES.get(run.recipe.arm)) is not None
        and (run.recipe.arm, run.seed, kind) not in seen
    ]


def _exceptions(histories: Sequence[History], exceptions: Sequence[CounterExample]) -> list[str]:
    """The counter-examples by name, the seeds of one arm together."""
    found = []
    for kind, arm in dict.fromkeys((item.kind, item.arm) for item in exceptions):
        seeds = [item.seed for item in exceptions if (item.kind, item.arm) == (kind, arm)]
        runs = [run for run in histories if run.recipe.arm == arm and run.seed in seeds]
        traps = spread([float(run.centred(run.last)) for run in runs], ".0f")
        lost = [run.peak.test_accuracy - run.last.test_accuracy for run in runs]
        fitted = spread([run.last.train_accuracy for run in runs])
        found.append(
            f"Counter-example, {kind}: arm {arm}, {'seed' if len(seeds) == 1 else 'seeds'} "
            f"{', '.join(map(str, seeds))}: {traps} centred traps at the end, test accuracy {spread(lost)} below its "
            f"peak, train {fitted}."
        )
    return found
