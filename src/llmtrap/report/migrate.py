"""Reports of older schemas, turned into the present one: nothing is added that the old report did not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from llmtrap.checkpoint.families import gather_facts
from llmtrap.checkpoint.naming import Module, Place, load_grammar, name_places
from llmtrap.report.document import LeftOut, Matrix

OLDER: Final = "llmtrap.report/1"

# How a report of the first schema worded why a tensor was left out, and what that counts as now. What is not here
# counts as unmeasured weights.
_KINDS: Final[tuple[tuple[str, LeftOut], ...]] = (
    ("one-dimensional", "one_dimensional"),
    ("scalar", "one_dimensional"),
    ("a stack of biases", "one_dimensional"),
    ("integer buffer", "buffer"),
    ("excluded by --exclude", "on_request"),
    ("not included by --include", "on_request"),
    ("a second copy", "file_not_read"),
    ("complex numbers", "unreadable"),
)


def older_kind(tensor: str, reason: str) -> LeftOut:
    """The class in which a tensor that an older report left out is counted now."""
    if tensor.endswith("(file)"):
        return "file_not_read"
    return next((kind for start, kind in _KINDS if reason.startswith(start)), "unmeasured")


def older_level(summary: dict[str, Any], *, unknown: bool) -> str:
    """The one word for programs, from the counts that the first schema had."""
    if summary.get("non_finite"):
        return "broken"
    if not summary.get("matrices"):
        return "nothing_measured"
    if summary.get("with_traps"):
        return "unusual"
    return "partly_measured" if unknown else "usual"


_STORED = (".weight", "_blocks", ".blocks")  # what older reports' tensors have after the module's name
_PARTS_OF_FUSED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}


def older_names(matrices: Sequence[Matrix], family: str) -> list[Matrix]:
    """The matrices of an older report under the ids that their tensors have now, so that it compares with a new one.

    Older versions named a matrix after its module where they had no table for its model. Where the names of today would
    give two matrices one id, all are left as they are.

    Args:
        matrices: as the report has them.
        family: what it calls the model's family.
    """
    shared = Counter(matrix.tensor for matrix in matrices)
    modules = {}
    for matrix in matrices:
        stacked = matrix.expert is not None and shared[matrix.tensor] > 1
        name = next((matrix.tensor.removesuffix(end) for end in _STORED if matrix.tensor.endswith(end)), matrix.tensor)
        modules[matrix.tensor] = Module(name, (1, *matrix.shape) if stacked else matrix.shape)
    facts = gather_facts({"model_type": family}, [module.name for module in modules.values()])
    grammar = load_grammar().extended(parts=facts.parts, roles=facts.roles)
    places = dict(zip(modules, name_places(list(modules.values()), grammar, {}), strict=True))
    named = [
        _placed(matrix, places[matrix.tensor], stack=len(modules[matrix.tensor].shape) == 3) for matrix in matrices
    ]
    return named if len({matrix.id for matrix in named}) == len(named) else list(matrices)


def _placed(matrix: Matrix, place: Place, *, stack: bool) -> Matrix:
    if stack and matrix.expert is not None:
        place = place.for_expert(matrix.expert)
    id_, role, leaf = place.id, place.role, matrix.role.rpartition(".")[2]
    if _PARTS_OF_FUSED.get(leaf) == role.rpartition(".")[2]:  # split by --split-fused
        id_, role = (f"{name.rpartition('.')[0]}.{leaf}" for name in (id_, role))
    update = {"id": id_, "part": place.part, "layer": place.layer, "role": role, "expert": place.expert}
    return matrix.model_copy(update=update)
