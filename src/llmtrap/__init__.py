"""llmtrap audits LLM checkpoints for signs of overfitting that need no data.

From Python:

    import llmtrap

    report = llmtrap.audit("path/to/model")
    print(report.summary.verdict)

`gate` judges a fine-tune against its base, `calibrate` trains the grokking tasks and checks the detector on them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from llmtrap.version import __version__

if TYPE_CHECKING:
    from llmtrap.audit import AuditRun, AuditSettings, RunOptions, audit
    from llmtrap.calibrate import CalibrationReport, CalibrationSettings, calibrate
    from llmtrap.checkpoint import Checkpoint, WeightMatrix, open_checkpoint
    from llmtrap.errors import LlmtrapError
    from llmtrap.gate import Gated, GateOptions, Judgement, LoadedPolicy, gate, load_policy
    from llmtrap.report.document import Report

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

_DEFINED_IN = {
    "AuditRun": "llmtrap.audit.run",
    "AuditSettings": "llmtrap.audit.settings",
    "RunOptions": "llmtrap.audit.settings",
    "audit": "llmtrap.audit.run",
    "CalibrationReport": "llmtrap.calibrate",
    "CalibrationSettings": "llmtrap.calibrate",
    "calibrate": "llmtrap.calibrate",
    "Checkpoint": "llmtrap.checkpoint",
    "WeightMatrix": "llmtrap.checkpoint",
    "open_checkpoint": "llmtrap.checkpoint",
    "LlmtrapError": "llmtrap.errors",
    "Gated": "llmtrap.gate",
    "GateOptions": "llmtrap.gate",
    "Judgement": "llmtrap.gate",
    "LoadedPolicy": "llmtrap.gate",
    "gate": "llmtrap.gate",
    "load_policy": "llmtrap.gate",
    "Report": "llmtrap.report.document",
}


class _Export:
    """A name that is imported when it is asked for: a worker, or `--version`, needs next to nothing of the rest.

    `audit`, `calibrate` and `gate` are functions here and packages beside: that an import sets the package under its
    name has no effect.
    """

    def __init__(self, name: str, module: str):
        self._name, self._module = name, module

    def __get__(self, instance: object, owner: type) -> Any:
        if "value" not in self.__dict__:
            self.value = getattr(import_module(self._module), self._name)
        return self.value

    def __set__(self, instance: object, value: object) -> None:
        if not isinstance(value, ModuleType):
            self.value = value


class _Package(ModuleType):
    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_DEFINED_IN]


for _name, _module in _DEFINED_IN.items():
    setattr(_Package, _name, _Export(_name, _module))
sys.modules[__name__].__class__ = _Package
