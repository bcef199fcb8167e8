"""One run of an audit: plan, measure, journal, document."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmtrap.callable_package import make_callable

if TYPE_CHECKING:
    from llmtrap.audit.call import analyze, audit
    from llmtrap.audit.journal import Journal, default_folder
    from llmtrap.audit.merge import merge_journals
    from llmtrap.audit.plan import Plan, Task, make_plan
    from llmtrap.audit.run import AuditRun, Event, Failed, Finished, Measured, Stalled, Started, journal_for
    from llmtrap.audit.settings import AuditSettings, Part, RunOptions

__all__ = [
    "AuditRun",
    "AuditSettings",
    "Event",
    "Failed",
    "Finished",
    "Journal",
    "Measured",
    "Part",
    "Plan",
    "RunOptions",
    "Stalled",
    "Started",
    "Task",
    "analyze",
    "audit",
    "default_folder",
    "journal_for",
    "make_plan",
    "merge_journals",
]

_DEFINED_IN = {
    "AuditRun": "llmtrap.audit.run",
    "AuditSettings": "llmtrap.audit.settings",
    "Event": "llmtrap.audit.run",
    "Failed": "llmtrap.audit.run",
    "Finished": "llmtrap.audit.run",
    "Journal": "llmtrap.audit.journal",
    "Measured": "llmtrap.audit.run",
    "Part": "llmtrap.audit.settings",
    "Plan": "llmtrap.audit.plan",
    "RunOptions": "llmtrap.audit.settings",
    "Stalled": "llmtrap.audit.run",
    "Started": "llmtrap.audit.run",
    "Task": "llmtrap.audit.plan",
    "analyze": "llmtrap.audit.call",
    "audit": "llmtrap.audit.call",
    "default_folder": "llmtrap.audit.journal",
    "journal_for": "llmtrap.audit.run",
    "make_plan": "llmtrap.audit.plan",
    "merge_journals": "llmtrap.audit.merge",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: a worker needs little of this package, and starts with what it needs."""
    if name in _DEFINED_IN:
        return getattr(import_module(_DEFINED_IN[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


make_callable(__name__)
