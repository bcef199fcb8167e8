"""The gate: a fine-tuned checkpoint or its report, against its base and a policy."""

from __future__ import annotations

from llmtrap.callable_package import make_callable
from llmtrap.gate.document import Finding, Judgement
from llmtrap.gate.policy import Policy
from llmtrap.gate.policy_file import LoadedPolicy, load_policy
from llmtrap.gate.run import GateOptions, GateResult, gate

__all__ = ["Finding", "GateOptions", "GateResult", "Judgement", "LoadedPolicy", "Policy", "gate", "load_policy"]

make_callable(__name__)
