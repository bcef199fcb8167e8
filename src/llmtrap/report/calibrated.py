"""What the default thresholds flagged where the truth is known: the one sentence of the calibration profile."""

from __future__ import annotations

import importlib.resources
import json
from functools import cache


@cache
def calibrated() -> str:
    """The sentence of the profile that ships with the package, as `llmtrap calibrate` wrote it.

    The file is read by itself: the package beside it needs Plotly and more, which a terminal's report does not.
    """
    file = importlib.resources.files("llmtrap").joinpath("calibrate", "calibration.json")
    return str(json.loads(file.read_text(encoding="utf-8"))["sentence"])
