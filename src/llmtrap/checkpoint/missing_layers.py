"""Layers that the configuration counts and the weights lack: a checkpoint cut short can be sound in every file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from llmtrap.checkpoint.config import integer
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.tensors import Skipped

_LAYER = re.compile(r"layers\.(\d+)\..+")
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel")
_FEWEST = 2  # a model of one stored layer shares it among all (ALBERT)


def missing_layers(config: dict[str, Any], matrices: Iterable[WeightMatrix]) -> tuple[Skipped, ...]:
    """One entry for all layers of a language model of which there is no matrix; none where the count is not known.

    Layers beyond the count, such as those that predict further tokens, are nobody's loss.
    """
    listed = config.get("architectures")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    count = integer(config, "num_hidden_layers")
    if count is None or not any(name.endswith(_LANGUAGE_MODELS) for name in names):
        return ()
    found = {int(match[1]) for matrix in matrices if (match := _LAYER.fullmatch(matrix.id))}
    missing = sorted(set(range(min(count, 10_000))) - found)
    if len(found) < _FEWEST or not missing or max(found) >= count:
        return ()
    shown = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
    reason = f"config.json counts {count} layers, and of {len(missing)} of them there is no matrix"
    return (Skipped(f"layers {shown}", reason),)
