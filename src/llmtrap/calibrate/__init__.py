"""Calibrate: train networks whose overfitting is known, and see what the detectors say of them.

`calibrate(settings)` follows the grokking tasks and returns the report; `load_profile()` gives the rates that ship
with the package; `grokking_demo_checkpoints()` the three checkpoints of `llmtrap audit --demo grokking`. Training needs
the extra 'calibrate'; the rest does not.
"""

from __future__ import annotations

from llmtrap.calibrate.demo import grokking_demo_checkpoints
from llmtrap.calibrate.document import CalibrationReport, FailedRun
from llmtrap.calibrate.profile import CalibrationProfile, load_profile
from llmtrap.calibrate.run import calibrate
from llmtrap.calibrate.settings import CalibrationSettings, RunEvent
from llmtrap.callable_package import make_callable

__all__ = [
    "CalibrationProfile",
    "CalibrationReport",
    "CalibrationSettings",
    "FailedRun",
    "RunEvent",
    "calibrate",
    "grokking_demo_checkpoints",
    "load_profile",
]

make_callable(__name__)
