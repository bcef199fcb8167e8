"""The reference tool, run on a sample of the same matrices: agreement shown, differences explained."""

from __future__ import annotations

from llmtrap.verify.compare import Comparison, compare, sample, verify
from llmtrap.verify.reference import Reference, run_weightwatcher

__all__ = ["Comparison", "Reference", "compare", "run_weightwatcher", "sample", "verify"]
