"""llmtrap audits LLM checkpoints for signs of overfitting that need no data.

From Python:

    import llmtrap

    report = llmtrap.audit("path/to/model")
    print(report.summary.verdict)
"""

from __future__ import annotations

from llmtrap.audit import AuditRun, AuditSettings, RunOptions, audit
from llmtrap.checkpoint import Checkpoint, WeightMatrix, open_checkpoint
from llmtrap.errors import LlmtrapError
from llmtrap.report.document import Report
from llmtrap.version import __version__

__all__ = [
    "AuditRun",
    "AuditSettings",
    "Checkpoint",
    "LlmtrapError",
    "Report",
    "RunOptions",
    "WeightMatrix",
    "__version__",
    "audit",
    "open_checkpoint",
]
