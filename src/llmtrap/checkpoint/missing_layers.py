"""Layers and experts that the configuration counts and the weights lack: every file can be sound all the same."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from llmtrap.checkpoint.config import integer
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.shapes import EXPERT_COUNTS
from llmtrap.checkpoint.tensors import Skipped

_LAYER = re.compile(r"layers\.(\d+)\..+")
_EXPERT = re.compile(r"(.*layers\.\d+\.experts\.)(\d+)(\..+)")
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


def missing_experts(config: dict[str, Any], matrices: Iterable[WeightMatrix]) -> tuple[Skipped, ...]:
    """One entry for all experts that a layer lacks of a matrix that others of its experts have.

    Where the configuration gives no number, the highest expert of the layer does. A layer with more experts than are
    counted is left alone: the number is then of something else.
    """
    counted = next((count for key in EXPERT_COUNTS if (count := integer(config, key)) is not None), None)
    found: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for matrix in matrices:
        if ".experts." in matrix.id and (match := _EXPERT.fullmatch(matrix.id)):
            found[match[1], match[3]].add(int(match[2]))
    missing: list[str] = []
    for (layer, role), experts in found.items():
        count = counted or max(experts) + 1
        if max(experts) < count != len(experts):
            missing += (f"{layer}{expert}{role}" for expert in range(min(count, 10_000)) if expert not in experts)
    if not missing:
        return ()
    shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    of = f"config.json counts {counted} experts in a layer" if counted else "others of their layer are there"
    return (Skipped(shown, f"{of}, and {len(missing)} matrices of experts are not in the checkpoint"),)
