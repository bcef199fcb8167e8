"""llmtrap audits LLM checkpoints for signs of overfitting that need no data.

From Python:

    import llmtrap

    report = llmtrap.audit("path/to/model")
    print(report.summary.verdict)

`gate` judges a fine-tune against its base, `calibrate` trains the grokking tasks and checks the detector on them.
"""

from __future__ import annotations

from llmtrap.audit import AuditRun, AuditSettings, RunOptions, audit
from llmtrap.calibrate import CalibrationReport, CalibrationSettings, calibrate
from llmtrap.checkpoint import Checkpoint, WeightMatrix, open_checkpoint
from llmtrap.errors import LlmtrapError
from llmtrap.gate import Gated, GateOptions, Judgement, LoadedPolicy, gate, load_policy
from llmtrap.report.document import Report
from llmtrap.version import __version__

__all__ = [
    "AuditRun",
    "AuditSettings",
    "CalibrationReport",
    "CalibrationSettings",
    "Checkpoint",
    "GateOptions",
    "Gated",
    "Judgement",
    "LlmtrapError",
    "LoadedPolicy",
    "Report",
    "RunOptions",
    "WeightMatrix",
    "__version__",
    "audit",
    "calibrate",
    "gate",
    "load_policy",
    "open_checkpoint",
]
