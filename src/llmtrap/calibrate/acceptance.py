"""Did the phases show? The rules, fixed beforehand, by which a calibration says so, run by run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmtrap.calibrate.document import Check
from llmtrap.calibrate.findings import of_run
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.formatting import signed
from llmtrap.calibrate.phases import DROP, FITTED, GAP, STILL_FITTED

MOST_TRAPS_BEFORE = 1
LEAST_TRAPS_AFTER = 5
KEPT_LOSS = 0.06
GROKKED_SUMS = 0.99
GROKKED_FACTS = 0.90


@dataclass(frozen=True)
class Rule:
    """What is asked of a run in words; what is found, and whether that is enough; whether it is asked of its end."""

    words: str
    judge: Callable[[Run], tuple[str, bool]]
    at_end: bool = False


def check(run: Run, preset: str) -> tuple[Check, ...]:
    """The rules that apply to a run; none for the arms that are there as hard cases, which are reported only.

    A run that is still under way is not held to what must be so at the end.
    """
    found = []
    for rule in _rules(run.recipe.task, run.recipe.arm, preset):
        if run.complete or not rule.at_end:
            words, passed = rule.judge(run)
            found.append(Check(**of_run(run), rule=rule.words, found=words, passed=passed))
    return tuple(found)


def _rules(task: str, arm: str, preset: str) -> tuple[Rule, ...]:
    if task == "modular-addition":
        reaches = _reaches(GROKKED_SUMS)
        kept = (reaches, _KEEPS)
        own = {"float32": (_GAP, reaches, _COLLAPSES), "float64": kept, "decay-kept": kept}
        return own.get(arm, (_GAP, reaches))
    if task == "composition":
        return (_reaches(GROKKED_FACTS), *((_KEEPS,) if arm == "rate-decay" else ()))
    collapse = (_GAP, _NO_EARLY_TRAPS, _NO_TRAPS_AT_PEAK, _falls(least_drop(task, preset)), _STILL_FITS, _TRAPS_AT_END)
    return {"wd0": collapse, "decay": (_KEEPS, _ENDS_WITHOUT_TRAPS)}.get(arm, ())


def least_drop(task: str, preset: str) -> float:
    """Test accuracy that must be lost from the peak: the digits lose less, the long recipe more."""
    if task == "digits":
        return 0.05
    return 0.15 if preset == "full" else 0.10


# -- the rules -------------------------------------------------------------------------------------------------------


def _gap(run: Run) -> tuple[str, bool]:
    before = run.phase("pre-grok")
    gap = max((m.train_accuracy - m.test_accuracy for m in before), default=None)
    return "none" if gap is None else f"largest gap {gap:.3f} over {len(before)} checkpoints", gap is not None


def _early_traps(run: Run) -> tuple[str, bool]:
    before = run.phase("pre-grok")
    most = max((run.centred(m) for m in before), default=0)
    return f"at most {most}", bool(before) and most <= MOST_TRAPS_BEFORE


def _traps_at_peak(run: Run) -> tuple[str, bool]:
    peak, traps = run.peak, run.centred(run.peak)
    return f"{traps} at step {peak.step:,}, test {peak.test_accuracy:.3f}", traps <= MOST_TRAPS_BEFORE


def _lost(run: Run) -> str:
    return f"{run.peak.test_accuracy:.3f} → {run.last.test_accuracy:.3f}, {signed(-run.lost)}"


def _collapse(run: Run) -> tuple[str, bool]:
    """Loose on purpose: when and how far a network falls that rounding makes fall differs by seed and BLAS."""
    fallen = run.phase("anti-grok")
    if not fallen:
        return "none", False
    lowest = min(fallen, key=lambda m: m.test_accuracy)
    start = f"{len(fallen)} from step {fallen[0].step:,}"
    return f"{start}, lowest {lowest.test_accuracy:.3f} at step {lowest.step:,}", True


def _first_layer(run: Run) -> tuple[str, bool]:
    first = run.layers(run.last)[0].traps.centred
    return f"{first}", first >= LEAST_TRAPS_AFTER


def _reaches(accuracy: float) -> Rule:
    def judge(run: Run) -> tuple[str, bool]:
        top = run.peak.test_accuracy
        return f"{top:.3f} at step {run.peak.step:,}", top >= accuracy

    return Rule(f"test reaches {accuracy:.2f}", judge)


def _falls(drop: float) -> Rule:
    return Rule(f"at the end test ≤ peak − {drop:.2f}", lambda run: (_lost(run), run.lost >= drop), at_end=True)


_GAP = Rule(f"a checkpoint before the peak has train ≥ {FITTED:.2f} and train − test ≥ {GAP:.2f}", _gap)
_NO_EARLY_TRAPS = Rule(f"none of them has more than {MOST_TRAPS_BEFORE} centred trap", _early_traps)
_NO_TRAPS_AT_PEAK = Rule(f"at most {MOST_TRAPS_BEFORE} centred trap at the peak", _traps_at_peak)
_COLLAPSES = Rule(f"a checkpoint after the peak has test ≤ peak − {DROP:.2f} and train ≥ {STILL_FITTED:.2f}", _collapse)
_STILL_FITS = Rule(
    f"at the end train ≥ {STILL_FITTED:.2f}",
    lambda run: (f"{run.last.train_accuracy:.3f}", run.last.train_accuracy >= STILL_FITTED),
    at_end=True,
)
_TRAPS_AT_END = Rule(
    f"at the end at least {LEAST_TRAPS_AFTER} centred traps in the first layer", _first_layer, at_end=True
)
_KEEPS = Rule(f"ends within {KEPT_LOSS:.2f} of its peak", lambda run: (_lost(run), run.lost <= KEPT_LOSS), at_end=True)
_ENDS_WITHOUT_TRAPS = Rule(
    f"ends with at most {MOST_TRAPS_BEFORE} centred trap",
    lambda run: (f"{run.centred(run.last)}", run.centred(run.last) <= MOST_TRAPS_BEFORE),
    at_end=True,
)
