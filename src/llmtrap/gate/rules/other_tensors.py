"""LT012: what changed outside the weight matrices: norms, biases, buffers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field

from llmtrap.checkpoint.encodings.plain import DTYPES
from llmtrap.gate.document import Chance, OutsideTensor
from llmtrap.gate.matching import MatchedSides
from llmtrap.gate.rules.base import NotJudged, Rule, RuleSettings, Violation
from llmtrap.report.formatting import number, printable

# Tables that a library computes by itself, and stores or not as its version likes.
_COMPUTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|(attn|attention)\.bias|causal_mask|num_batches_tracked"
    r"|relative_position_index|cos_cached|sin_cached)$"
)


class Outside(RuleSettings):
    """How far a tensor outside the matrices may move."""

    max_scale: float = Field(default=2.0, gt=1, description="factor by which its root mean square may grow or shrink")
    max_relative: float = Field(default=0.5, gt=0, description="of the norm of its change over the norm of the base's")
    max_bias_relative: float = Field(default=2.0, gt=0, description="the same of a bias, which may begin near zero")
    max_row_norm: float = Field(
        default=4.0, gt=0, description="norm of a new token's row over the largest of the others"
    )


def check(matched: MatchedSides, settings: Outside, chance: Chance) -> Iterator[Violation | NotJudged]:
    """Tensors that moved far, integers that changed at all, and tensors that one side lacks."""
    del chance
    if matched.base is None or not matched.same_architecture:
        return
    if matched.outside is None:
        yield NotJudged(None, "a report does not hold tensors outside the matrices: give the weights of both sides")
        return
    for tensor in matched.outside:
        why = _why(tensor, settings)
        if why is not None:
            message = f"{printable(tensor.tensor, 160)}, which is no weight matrix: {why}"
            yield Violation(None, tensor.tensor, message, cause=tensor.tensor, severity=tensor.relative or 0.0)


def _why(tensor: OutsideTensor, settings: Outside) -> str | None:
    """What is wrong with it; None where nothing is, and where NaN is LT005's to name."""
    computed = _COMPUTED.search(tensor.tensor) is not None
    if tensor.change in ("missing", "added", "reshaped"):
        words = {"missing": "missing, and the base has it", "added": "added", "reshaped": "of another shape"}
        return None if computed else words[tensor.change]
    if tensor.nan or tensor.inf or tensor.change in ("same", "unreadable"):
        return None
    if tensor.change == "grown":
        if tensor.scale is not None and tensor.scale > settings.max_row_norm:
            return f"a norm of {number(tensor.scale)} times the largest of the other rows"
        return None
    if tensor.dtype not in DTYPES:
        return f"{tensor.dtype} values changed, which no training does"
    if tensor.relative is None or tensor.scale is None:
        return None  # the base's are all zero
    bias = tensor.tensor.endswith("bias")
    if tensor.relative > (settings.max_bias_relative if bias else settings.max_relative):
        return f"changed by {number(100 * tensor.relative)} % of the base's norm"
    if not bias and not 1 / settings.max_scale <= tensor.scale <= settings.max_scale:
        return f"scaled to {number(tensor.scale)} times the base's"
    return None


RULE = Rule(
    id="LT012",
    name="outside-matrices",
    title="A tensor that is no weight matrix was broken, replaced or rescaled",
    settings=Outside,
    check=check,
    scope="checkpoint",
)
