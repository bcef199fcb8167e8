"""Worker processes: started deaf to signals, watched while they work, and ended within seconds whatever they do."""

from __future__ import annotations

from llmtrap.processes.worker import WorkerDiedError, WorkerProcess, stop_all, wait_for_answers

__all__ = ["WorkerDiedError", "WorkerProcess", "stop_all", "wait_for_answers"]
