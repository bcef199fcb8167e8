"""Did the three phases show? The rules, fixed beforehand, by which a calibration says so, run by run."""

from __future__ import annotations

from llmtrap.calibrate.document import Check
from llmtrap.calibrate.history import History
from llmtrap.calibrate.phases import FITTED, GAP, STILL_FITTED
from llmtrap.calibrate.words import signed

MOST_TRAPS_BEFORE = 1
LEAST_TRAPS_AFTER = 5
DECAYED_LOSS = 0.06
GROKKED_SUMS = 0.99
_AT_THE_END = ("at the end", "ends ")


def least_drop(task: str, preset: str) -> float:
    """Test accuracy that must be lost from the peak: the digits lose less, the long recipe more."""
    if task == "digits":
        return 0.05
    return 0.15 if preset == "full" else 0.10


def check(history: History, preset: str) -> tuple[Check, ...]:
    """The rules that apply to a run; none for the arms that are there as hard cases, which are reported only.

    A run that is still under way is not held to what must be so at the end.
    """
    recipe = history.recipe
    if recipe.task == "modular-addition":
        return _sums(history)
    if recipe.arm == "wd0":
        rows = _collapse(history, least_drop(recipe.task, preset))
    else:
        rows = _true_negative(history) if recipe.arm == "decay" else ()
    return rows if history.complete else tuple(row for row in rows if not row.rule.startswith(_AT_THE_END))


def _check(history: History, rule: str, found: str, passed: bool) -> Check:
    recipe = history.recipe
    return Check(task=recipe.task, arm=recipe.arm, seed=history.seed, rule=rule, found=found, passed=passed)


def _collapse(history: History, drop: float) -> tuple[Check, ...]:
    peak, last = history.peak, history.last
    before = history.phase("pre-grok")
    gap = max((m.train_accuracy - m.test_accuracy for m in before), default=None)
    early = max((history.centred(m) for m in before), default=0)
    first = history.layers(last)[0].centred
    fallen = peak.test_accuracy - last.test_accuracy
    return (
        _check(
            history,
            f"a checkpoint before the peak has train ≥ {FITTED:.2f} and train − test ≥ {GAP:.2f}",
            "none" if gap is None else f"largest gap {gap:.3f} over {len(before)} checkpoints",
            gap is not None,
        ),
        _check(
            history,
            f"none of them has more than {MOST_TRAPS_BEFORE} centred trap",
            f"at most {early}",
            bool(before) and early <= MOST_TRAPS_BEFORE,
        ),
        _check(
            history,
            f"at most {MOST_TRAPS_BEFORE} centred trap at the peak",
            f"{history.centred(peak)} at step {peak.step:,}, test {peak.test_accuracy:.3f}",
            history.centred(peak) <= MOST_TRAPS_BEFORE,
        ),
        _check(
            history,
            f"at the end test ≤ peak − {drop:.2f}",
            f"{peak.test_accuracy:.3f} → {last.test_accuracy:.3f}, {signed(-fallen)}",
            fallen >= drop,
        ),
        _check(
            history,
            f"at the end train ≥ {STILL_FITTED:.2f}",
            f"{last.train_accuracy:.3f}",
            last.train_accuracy >= STILL_FITTED,
        ),
        _check(
            history,
            f"at the end at least {LEAST_TRAPS_AFTER} centred traps in the first layer",
            f"{first}",
            first >= LEAST_TRAPS_AFTER,
        ),
    )


def _true_negative(history: History) -> tuple[Check, ...]:
    peak, last = history.peak, history.last
    lost = peak.test_accuracy - last.test_accuracy
    return (
        _check(
            history,
            f"ends within {DECAYED_LOSS:.2f} of its peak",
            f"{peak.test_accuracy:.3f} → {last.test_accuracy:.3f}, {signed(-lost)}",
            lost <= DECAYED_LOSS,
        ),
        _check(
            history,
            f"ends with at most {MOST_TRAPS_BEFORE} centred trap",
            f"{history.centred(last)}",
            history.centred(last) <= MOST_TRAPS_BEFORE,
        ),
    )


def _sums(history: History) -> tuple[Check, ...]:
    before, peak = history.phase("pre-grok"), history.peak
    gap = max((m.train_accuracy - m.test_accuracy for m in before), default=None)
    return (
        _check(
            history,
            f"a checkpoint before the peak has train ≥ {FITTED:.2f} and train − test ≥ {GAP:.2f}",
            "none" if gap is None else f"largest gap {gap:.3f}",
            gap is not None,
        ),
        _check(
            history,
            f"test reaches {GROKKED_SUMS:.2f}",
            f"{peak.test_accuracy:.3f} at step {peak.step:,}",
            peak.test_accuracy >= GROKKED_SUMS,
        ),
    )
