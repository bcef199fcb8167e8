"""Which phase a checkpoint is in, by its accuracies alone: what the detectors are then held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Phase = Literal["pre-grok", "grok", "anti-grok", "other"]
PHASES: tuple[Phase, ...] = ("pre-grok", "grok", "anti-grok")

FITTED = 0.85
GAP = 0.40
NEAR_PEAK = 0.05
DROP = 0.10
STILL_FITTED = 0.95


@dataclass(frozen=True)
class Labelled:
    """The phases of one run; `peak` is the index of the first checkpoint of highest test accuracy."""

    peak: int
    phases: tuple[Phase, ...]

    def members(self, phase: Phase) -> tuple[int, ...]:
        """Indices of the checkpoints in a phase."""
        return tuple(index for index, label in enumerate(self.phases) if label == phase)

    def representative(self, phase: Phase) -> int | None:
        """The checkpoint to show for a phase: the last before the gap closes, the peak, the last of the collapse."""
        members = self.members(phase)
        if not members:
            return None
        return self.peak if phase == "grok" else members[-1]


def label(train: Sequence[float], test: Sequence[float]) -> Labelled:
    """Label every checkpoint of a run.

    * pre-grok: before the peak, training accuracy at least 0.85 and at least 0.40 above test accuracy;
    * grok: test accuracy within 0.05 of the peak, the training data fitted (0.85), and no gap of 0.40;
    * anti-grok: after the peak, test accuracy at least 0.10 below it, training accuracy at least 0.95; only where the
      peak itself is grokked;
    * other: all else (the start, and the slopes between).

    Args:
        train: training accuracy at each checkpoint, in order of steps.
        test: test accuracy at the same checkpoints.
    """
    top = max(test)
    peak = list(test).index(top)
    grokked = train[peak] >= FITTED and train[peak] - top < GAP
    phases: list[Phase] = []
    for index, (fit, score) in enumerate(zip(train, test, strict=True)):
        if index < peak and fit >= FITTED and fit - score >= GAP:
            phases.append("pre-grok")
        elif score >= top - NEAR_PEAK and fit >= FITTED and fit - score < GAP:
            phases.append("grok")
        elif grokked and index > peak and score <= top - DROP and fit >= STILL_FITTED:
            phases.append("anti-grok")
        else:
            phases.append("other")
    return Labelled(peak, tuple(phases))
