"""Did the phases show? The rules, fixed beforehand, by which a calibration says so, run by run."""

from __future__ import annotations

from collections.abc import Callable

from llmtrap.calibrate.document import Check
from llmtrap.calibrate.formatting import signed
from llmtrap.calibrate.history import History
from llmtrap.calibrate.phases import DROP, FITTED, GAP, STILL_FITTED

MOST_TRAPS_BEFORE = 1
LEAST_TRAPS_AFTER = 5
KEPT_LOSS = 0.06
GROKKED_SUMS = 0.99
GROKKED_FACTS = 0.90
_AT_THE_END = ("at the end", "ends ")

# A rule gives what it asks for, what was found, and whether that is enough.
Rule = Callable[[History], tuple[str, str, bool]]


def check(history: History, preset: str) -> tuple[Check, ...]:
    """The rules that apply to a run; none for the arms that are there as hard cases, which are reported only.

    A run that is still under way is not held to what must be so at the end.
    """
    recipe = history.recipe
    found = []
    for rule in _rules(recipe.task, recipe.arm, preset):
        words, seen, passed = rule(history)
        if history.complete or not words.startswith(_AT_THE_END):
            found.append(
                Check(task=recipe.task, arm=recipe.arm, seed=history.seed, rule=words, found=seen, passed=passed)
            )
    return tuple(found)


def _rules(task: str, arm: str, preset: str) -> tuple[Rule, ...]:
    if task == "modular-addition":
        if arm in ("float64", "decay-kept"):
            return _reaches(GROKKED_SUMS), _keeps
        grokking = (_gap, _reaches(GROKKED_SUMS))
        return (*grokking, _collapses) if arm == "float32" else grokking
    if task == "composition":
        return (_reaches(GROKKED_FACTS), _keeps) if arm == "rate-decay" else (_reaches(GROKKED_FACTS),)
    if arm == "wd0":
        return _gap, _no_early_traps, _no_traps_at_peak, _falls(least_drop(task, preset)), _still_fits, _traps_at_end
    return (_keeps, _ends_without_traps) if arm == "decay" else ()


def least_drop(task: str, preset: str) -> float:
    """Test accuracy that must be lost from the peak: the digits lose less, the long recipe more."""
    if task == "digits":
        return 0.05
    return 0.15 if preset == "full" else 0.10


# -- the rules -------------------------------------------------------------------------------------------------------


def _gap(history: History) -> tuple[str, str, bool]:
    before = history.phase("pre-grok")
    gap = max((m.train_accuracy - m.test_accuracy for m in before), default=None)
    return (
        f"a checkpoint before the peak has train ≥ {FITTED:.2f} and train − test ≥ {GAP:.2f}",
        "none" if gap is None else f"largest gap {gap:.3f} over {len(before)} checkpoints",
        gap is not None,
    )


def _no_early_traps(history: History) -> tuple[str, str, bool]:
    before = history.phase("pre-grok")
    most = max((history.centred(m) for m in before), default=0)
    passed = bool(before) and most <= MOST_TRAPS_BEFORE
    return f"none of them has more than {MOST_TRAPS_BEFORE} centred trap", f"at most {most}", passed


def _no_traps_at_peak(history: History) -> tuple[str, str, bool]:
    peak = history.peak
    traps = history.centred(peak)
    found = f"{traps} at step {peak.step:,}, test {peak.test_accuracy:.3f}"
    return f"at most {MOST_TRAPS_BEFORE} centred trap at the peak", found, traps <= MOST_TRAPS_BEFORE


def _reaches(accuracy: float) -> Rule:
    def rule(history: History) -> tuple[str, str, bool]:
        peak = history.peak
        found = f"{peak.test_accuracy:.3f} at step {peak.step:,}"
        return f"test reaches {accuracy:.2f}", found, peak.test_accuracy >= accuracy

    return rule


def _lost(history: History) -> tuple[float, str]:
    peak, last = history.peak.test_accuracy, history.last.test_accuracy
    return peak - last, f"{peak:.3f} → {last:.3f}, {signed(last - peak)}"


def _falls(drop: float) -> Rule:
    def rule(history: History) -> tuple[str, str, bool]:
        lost, words = _lost(history)
        return f"at the end test ≤ peak − {drop:.2f}", words, lost >= drop

    return rule


def _collapses(history: History) -> tuple[str, str, bool]:
    """Loose on purpose: when and how far a network falls that rounding makes fall differs by seed and BLAS."""
    fallen = history.phase("anti-grok")
    rule = f"a checkpoint after the peak has test ≤ peak − {DROP:.2f} and train ≥ {STILL_FITTED:.2f}"
    if not fallen:
        return rule, "none", False
    lowest = min(fallen, key=lambda m: m.test_accuracy)
    found = f"{len(fallen)} from step {fallen[0].step:,}, lowest {lowest.test_accuracy:.3f} at step {lowest.step:,}"
    return rule, found, True


def _still_fits(history: History) -> tuple[str, str, bool]:
    train = history.last.train_accuracy
    return f"at the end train ≥ {STILL_FITTED:.2f}", f"{train:.3f}", train >= STILL_FITTED


def _traps_at_end(history: History) -> tuple[str, str, bool]:
    first = history.layers(history.last)[0].centred
    rule = f"at the end at least {LEAST_TRAPS_AFTER} centred traps in the first layer"
    return rule, f"{first}", first >= LEAST_TRAPS_AFTER


def _keeps(history: History) -> tuple[str, str, bool]:
    lost, words = _lost(history)
    return f"ends within {KEPT_LOSS:.2f} of its peak", words, lost <= KEPT_LOSS


def _ends_without_traps(history: History) -> tuple[str, str, bool]:
    traps = history.centred(history.last)
    return f"ends with at most {MOST_TRAPS_BEFORE} centred trap", f"{traps}", traps <= MOST_TRAPS_BEFORE
