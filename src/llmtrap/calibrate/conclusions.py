"""What the numbers say, in sentences: computed, so that they can come out against the detector."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from llmtrap.calibrate.document import Check, CounterExample, Onset, RateRow, SeparationRow
from llmtrap.calibrate.findings import by_arm
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.formatting import percent, spread
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.scores import score
from llmtrap.report.formatting import duration, plural

SMALL_NETWORKS = (
    "These are small networks on small data: the rates are theirs, and say nothing of the rates on language models."
)
# AUCs between these say next to nothing; below the first, traps mark the healthy checkpoints.
OPPOSITE, USEFUL = 0.4, 0.6
_WITHOUT, _WITH = "without weight decay", "with weight decay"
# Arms that are there as counter-examples, and for what.
_HARD_CASES = {"wd0.1": "traps without collapse", "eps1e-5": "collapse without traps"}


def conclude(
    runs: Sequence[Run],
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
        *_provoked(runs),
        *_far(runs),
        *_detector({(row.arms, row.measure, row.threshold.rpartition(" ")[2]): row for row in rates}),
        *_exceptions(runs, exceptions),
        *_unseen(runs, exceptions),
        *(_phases(arm, members) for arm, members in by_arm(runs).items()),
        *(_unfinished(run) for run in runs if not run.complete),
        SMALL_NETWORKS,
    )


def _lag(onsets: Sequence[Onset]) -> list[str]:
    found = []
    later = [onset for onset in onsets if not onset.traps_at_peak]
    if early := len(onsets) - len(later):
        found.append(
            f"Of {len(onsets)} runs that collapse, {early} have centred traps at their peak already: there traps mark "
            "the healthy network, and foretell nothing."
        )
    if not later:
        return found
    lost = [100 * onset.lost for onset in later if onset.lost is not None]
    text = f"Of {len(later)} runs that collapse, {len(lost)} show a centred trap after their peak"
    if lost:
        middle = median(lost)
        follow = ": traps follow the collapse, they do not foretell it"
        text += (
            f"; when the first is seen, {middle:.0f} points of test accuracy are already lost in the median "
            f"({min(lost):.0f} to {max(lost):.0f}){follow if middle >= 1 else ': they come while nothing is lost'}"
        )
    never = len(later) - len(lost)
    return [*found, text + (f"; {never} show none." if never else ".")]


def _rivals(separation: Sequence[SeparationRow]) -> list[str]:
    found = []
    for arms in (_WITHOUT, "all"):
        known = {row.measure: row for row in separation if row.arms == arms}
        areas = {name: row.against_grok.value for name, row in known.items() if row.against_grok is not None}
        if "centred" not in areas:
            continue
        mark = areas.pop("centred")
        least = max(mark - 0.005, USEFUL)
        better = [f"{known[name].label} ({area:.2f})" for name, area in areas.items() if area >= least]
        found.append(
            f"Centred traps tell anti-grokking from grokked checkpoints with an AUC of {mark:.2f} "
            f"({'arms ' + arms if arms != 'all' else 'all arms'}). "
            + ("They say the opposite of what they are held to say. " if mark < OPPOSITE else "")
            + (f"As well or better, alone: {'; '.join(better)}." if better else "No other measure does as well.")
        )
    return found


def _acceptance(checks: Sequence[Check]) -> list[str]:
    if not checks:
        return []
    runs = {(check.arm, check.seed) for check in checks}
    bad = {(check.arm, check.seed) for check in checks if not check.passed}
    text = f"The acceptance rules hold on {len(runs) - len(bad)} of {len(runs)} runs that have rules."
    failed = [f"{c.arm} seed {c.seed}: {c.rule} (found: {c.found})" for c in checks if not c.passed]
    return [text + (f" Not met: {'; '.join(failed)}." if failed else "")]


def _provoked(runs: Sequence[Run]) -> list[str]:
    """What the collapse of the sums is and is not, and where it goes against the paper."""
    switched = [run for run in runs if run.recipe.weight_decay_until is not None]
    if not any(run.phase("anti-grok") for run in switched):
        return []
    found = []
    for points in ([(run, m) for run in switched for m in run.phase(phase)] for phase in ("grok", "anti-grok")):
        traps = spread([float(run.centred(m)) for run, m in points], ".0f")
        alphas = spread([score("alpha_mean").value(run, m) for run, m in points], ".1f")
        found.append(f"{traps} centred traps and a mean α of {alphas}")
    return [
        "This collapse is provoked: weight decay is switched off after grokking, and float32 then rounds the gradients "
        "of examples that are known with a large margin. It is not the papers' recipe, which they do not give. Grokked "
        f"checkpoints of these arms have {found[0]}, collapsed ones {found[1]}; in the paper grokked ones have no trap "
        "and a mean α of 2.0, collapsed ones three to seven in each matrix and 3.9."
    ]


def _far(runs: Sequence[Run]) -> list[str]:
    """Accuracy outside the training distribution, for the task that has such examples."""
    ends = [run.last.far_accuracy for run in runs if run.last.far_accuracy is not None]
    if not ends:
        return []
    best = max(m.far_accuracy or 0.0 for run in runs for m in run.checkpoints)
    return [
        f"On facts made of two that were both set apart (out of distribution) accuracy ends at {spread(ends)} and is "
        f"never above {best:.3f}. No phase and no measure here is held against that."
    ]


def _detector(rates: dict[tuple[str, str, str], RateRow]) -> list[str]:
    found = []
    for arms in (_WITHOUT, _WITH):
        if (row := rates.get((arms, "centred", "1"))) is not None:
            phases = (("anti-grokking", row.anti), ("grokked", row.grok), ("pre-grokking", row.pre))
            shares = [f"{percent(share)} of {phase} checkpoints" for phase, share in phases if share is not None]
            found.append(f"In arms {arms}, at least one centred trap is seen in {' and in '.join(shares)}.")
    every, alpha = rates.get((_WITHOUT, "traps", "1")), rates.get((_WITHOUT, "alpha_reliable", "2"))
    if every is not None and every.grok is not None:
        nothing = "such a count says nothing of overfitting."
        found.append(
            f"A trap of any cause, mean shifts included, is seen in {percent(every.grok)} of the grokked checkpoints "
            f"without weight decay: {nothing if every.grok.value >= 0.5 else 'few, in these runs.'}"
        )
    if alpha is not None:
        found.append(
            f"A reliable α below 2 is seen in {percent(alpha.anti)} of anti-grokking, {percent(alpha.grok)} of grokked "
            f"and {percent(alpha.pre)} of pre-grokking checkpoints without weight decay."
        )
    return found


def _exceptions(runs: Sequence[Run], exceptions: Sequence[CounterExample]) -> list[str]:
    """The counter-examples by name, the seeds of one arm together."""
    found = []
    for kind, arm in dict.fromkeys((item.kind, item.arm) for item in exceptions):
        seeds = [item.seed for item in exceptions if (item.kind, item.arm) == (kind, arm)]
        members = [run for run in runs if run.recipe.arm == arm and run.seed in seeds]
        traps = spread([float(run.centred(run.last)) for run in members], ".0f")
        found.append(
            f"Counter-example, {kind}: arm {arm}, {'seed' if len(seeds) == 1 else 'seeds'} "
            f"{', '.join(map(str, seeds))}: {traps} centred traps at the end, test accuracy "
            f"{spread([run.lost for run in members])} below its peak, train "
            f"{spread([run.last.train_accuracy for run in members])}."
        )
    return found


def _unseen(runs: Sequence[Run], exceptions: Sequence[CounterExample]) -> list[str]:
    """The arms that are there as counter-examples and were none: that speaks for the detector, and is said too."""
    seen = {(item.arm, item.seed, item.kind) for item in exceptions}
    return [
        f"Arm {run.recipe.arm} seed {run.seed} is there for {kind} and did not show it: "
        f"{run.centred(run.last)} centred traps, test {run.last.test_accuracy:.3f} after a peak of "
        f"{run.peak.test_accuracy:.3f}, train {run.last.train_accuracy:.3f}."
        for run in runs
        if run.complete
        and (kind := _HARD_CASES.get(run.recipe.arm)) is not None
        and (run.recipe.arm, run.seed, kind) not in seen
    ]


def _phases(arm: str, runs: Sequence[Run]) -> str:
    seen = {phase: sum(phase in run.phases for run in runs) for phase in PHASES}
    when = "at the end" if all(run.complete for run in runs) else "where it stands"
    return (
        f"Arm {arm} ({plural(len(runs), 'run')}): pre-grokking seen in {seen['pre-grok']}, "
        f"grokking in {seen['grok']}, anti-grokking in {seen['anti-grok']}; test accuracy "
        f"{_range([run.peak.test_accuracy for run in runs])} at its peak and "
        f"{_range([run.last.test_accuracy for run in runs])} {when} (step {max(run.last.step for run in runs):,}), "
        f"training accuracy {_range([run.last.train_accuracy for run in runs])} {when}."
    )


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3f}" if len(values) == 1 else f"{fmean(values):.3f} ({low:.3f} to {high:.3f})"


def _unfinished(run: Run) -> str:
    """How far a run that is still under way has come, how fast it was, and what the rest would take."""
    return (
        f"Arm {run.recipe.arm} seed {run.seed} stands at step {run.last.step:,} of {run.recipe.steps:,}: "
        f"{run.steps_per_second:,.0f} steps a CPU second in the mean, {duration(run.last.seconds)} so far; at the pace "
        f"of its last tenth the rest takes about {duration(run.remaining_seconds)}."
    )
