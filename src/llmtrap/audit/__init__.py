"""One run of an audit: plan, measure, journal, document."""

from __future__ import annotations

from llmtrap.audit.journal import Journal, default_folder
from llmtrap.audit.merge import merge_journals
from llmtrap.audit.plan import Plan, Task, make_plan
from llmtrap.audit.run import AuditRun, Event, Failed, Finished, Measured, Stalled, Started, audit, journal_for
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
    "audit",
    "default_folder",
    "journal_for",
    "make_plan",
    "merge_journals",
]
