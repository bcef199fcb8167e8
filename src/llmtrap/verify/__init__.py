"""The reference tool, run on a sample of the same matrices: agreement shown, differences explained."""

from __future__ import annotations

from llmtrap.verify.compare import Comparison, NotCompared, compare, reference_seconds, sample, verify
from llmtrap.verify.reference import Reference, need_weightwatcher, run_weightwatcher

__all__ = [
    "Comparison",
    "NotCompared",
    "Reference",
    "compare",
    "need_weightwatcher",
    "reference_seconds",
    "run_weightwatcher",
    "sample",
    "verify",
]
