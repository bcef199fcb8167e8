"""What a candidate is called, from how much its ablation changes; the thresholds and where they come from."""

from __future__ import annotations

from llmtrap.ablation.document import Label
from llmtrap.ablation.measures import Estimate

INERT_BELOW = 1e-4
ACTIVE_FROM = 1e-3
"""On SmolLM2 this catches 7 of 8 entries whose loss changes by more than NLL_MATTERS at three standard errors."""
TIMES_CONTROLS = 10.0
NLL_MATTERS = 0.005
ERRORS = 3.0
LEAST_TOKENS = 32
"""An expert that fewer probe tokens reached is not judged."""


def label_of(
    j: Estimate, nll_change: Estimate | None, control_floor: float | None, tokens: int | None
) -> tuple[Label | None, str | None]:
    """The label, or why there is none.

    Args:
        j: Jensen–Shannon divergence of the ablated model's predictions, nats a token.
        nll_change: its change of the negative log-likelihood on text, where there is a text.
        control_floor: the largest J of the candidate's controls.
        tokens: how many probe tokens reached an expert; None for a matrix that all tokens pass.
    """
    if tokens is not None and tokens < LEAST_TOKENS:
        return None, f"{tokens} tokens of the probe reached this expert; {LEAST_TOKENS} are the least"
    if nll_change is not None and abs(nll_change.value) > NLL_MATTERS and nll_change.exceeds(ERRORS):
        return ("needed" if nll_change.value > 0 else "harmful"), None
    if j.value < INERT_BELOW or j.value < TIMES_CONTROLS * (control_floor or 0.0):
        return "inert", None
    if j.value >= ACTIVE_FROM and j.exceeds(ERRORS):
        return "active", None
    return "weak", None
