"""llmtrap audits LLM checkpoints for signs of overfitting that need no data.

From Python:

    import llmtrap

    report = llmtrap.audit("path/to/model")  # or a torch module, or a mapping of names to arrays
    print(report.summary.verdict)

`analyze` measures one matrix, `gate` judges a fine-tune against its base, `calibrate` trains the grokking tasks and
checks the detector on them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmtrap.version import __version__

if TYPE_CHECKING:
    from llmtrap.audit import AuditRun, AuditSettings, RunOptions, analyze, audit
    from llmtrap.calibrate import CalibrationReport, CalibrationSettings, calibrate
    from llmtrap.checkpoint import Checkpoint, WeightMatrix, open_checkpoint
    from llmtrap.errors import LlmtrapError
    from llmtrap.gate import GateOptions, GateResult, Judgement, LoadedPolicy, gate, load_policy
    from llmtrap.report.document import Report

__all__ = [
    "AuditRun",
    "AuditSettings",
    "CalibrationReport",
    "CalibrationSettings",
    "Checkpoint",
    "GateOptions",
    "GateResult",
    "Judgement",
    "LlmtrapError",
    "LoadedPolicy",
    "Report",
    "RunOptions",
    "WeightMatrix",
    "__version__",
    "analyze",
    "audit",
    "calibrate",
    "gate",
    "load_policy",
    "open_checkpoint",
]

_PACKAGES = ("audit", "calibrate", "gate")
"""They are called like functions, and have their modules as packages do."""

_DEFINED_IN = {
    "analyze": "llmtrap.audit.call",
    "audit": "llmtrap.audit.call",
    "calibrate": "llmtrap.calibrate.run",
    "gate": "llmtrap.gate.run",
    "AuditRun": "llmtrap.audit.run",
    "AuditSettings": "llmtrap.audit.settings",
    "RunOptions": "llmtrap.audit.settings",
    "CalibrationReport": "llmtrap.calibrate",
    "CalibrationSettings": "llmtrap.calibrate",
    "Checkpoint": "llmtrap.checkpoint",
    "WeightMatrix": "llmtrap.checkpoint",
    "open_checkpoint": "llmtrap.checkpoint",
    "LlmtrapError": "llmtrap.errors",
    "GateResult": "llmtrap.gate",
    "GateOptions": "llmtrap.gate",
    "Judgement": "llmtrap.gate",
    "LoadedPolicy": "llmtrap.gate",
    "load_policy": "llmtrap.gate",
    "Report": "llmtrap.report.document",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: a worker, or `--version`, needs next to nothing of the rest."""
    if name in _PACKAGES:
        return import_module(f"llmtrap.{name}")
    if name in _DEFINED_IN:
        value = getattr(import_module(_DEFINED_IN[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is meant to be used."""
    return __all__
