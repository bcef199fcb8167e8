"""What storing a checkpoint did to the matrices beside rounding them: rotations, scaled columns, reordered rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.containers.gguf.model import is_permuted
from llmtrap.checkpoint.encodings.column_scaled import UNDONE
from llmtrap.checkpoint.encodings.rotated import UNDONE as ROTATION_UNDONE
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.tensors import Catalogue

_ROTATIONS = re.compile(
    r"(?:^|[._])(?:hadamard|had_k|quarot|spinquant|R[1-4]_weight_(?:in|out)put)(?:[._]|$)", re.IGNORECASE
)
_REORDERED = (".attn_q.weight", ".attn_k.weight")
_NAMED = ("quarot", "spinquant", "rotation", "hadamard")


@dataclass(frozen=True)
class Caution:
    """One thing to know before the numbers of a report are read."""

    kind: Literal["rotated", "column_scaled", "rows_reordered"]
    text: str


def cautions(catalogue: Catalogue, matrices: Iterable[WeightMatrix]) -> tuple[Caution, ...]:
    """What is to be said of a whole checkpoint, from its configuration, its names and its encodings."""
    matrices = tuple(matrices)
    found = []
    encodings = {matrix.encoding for matrix in matrices}
    unrotated = any(ROTATION_UNDONE in encoding for encoding in encodings)
    where = _rotation(catalogue, undone=unrotated)
    if where is not None:
        found.append(
            Caution(
                "rotated",
                f"The weights are stored rotated ({where}). A rotation leaves α as it is and hides every trap: that "
                "none is found here says nothing. Audit the checkpoint before it was rotated.",
            )
        )
    if unrotated:
        found.append(
            Caution(
                "column_scaled",
                "Weights were rotated before rounding (transform_config); that is undone here. The scales of norms, "
                "which are multiplied into the matrices after them first, cannot be told from those and stay in them.",
            )
        )
    if any(encoding.startswith("AWQ") for encoding in encodings):
        found.append(
            Caution(
                "column_scaled",
                "AWQ stores matrices with scaled columns, and the inverse in the layer before: that moved α by 0.8 and "
                "made and hid traps where it was measured. Compare only with checkpoints scaled alike.",
            )
        )
    if any(UNDONE in encoding for encoding in encodings):
        found.append(
            Caution(
                "column_scaled",
                "Columns were scaled before rounding (pre_quant_scale); the scaling is undone here, so that the "
                "numbers are those of the matrix as it was trained.",
            )
        )
    reordered = sum(matrix.stored.name.endswith(_REORDERED) for matrix in matrices) if is_permuted(catalogue) else 0
    if reordered:
        found.append(
            Caution(
                "rows_reordered",
                f"llama.cpp reordered the rows of q and k ({reordered} matrices): spectra, α and traps are those of "
                "any order, but the row of an entry that is named there is the file's, not the original model's.",
            )
        )
    return tuple(found)


def _rotation(catalogue: Catalogue, *, undone: bool) -> str | None:
    """Where it is said that the weights were rotated, or None. Where `undone`, transform_config says nothing more."""
    settings = section(catalogue.config, "quantization_config")
    transforms = settings.get("transform_config")
    groups = transforms.get("config_groups") if isinstance(transforms, dict) else None
    if not undone and isinstance(groups, dict) and any(_on_weights(scheme) for scheme in groups.values()):
        return "transform_config"
    for key, value in settings.items():
        if value and (key.lower() in _NAMED or (isinstance(value, str) and value.lower() in _NAMED)):
            return f"quantization_config.{key}"
    name = next((name for name in catalogue.tensors if _ROTATIONS.search(name)), None)
    return None if name is None else "its own tensors hold the rotation"


def _on_weights(scheme: object) -> bool:
    """Whether a scheme of compressed-tensors' transforms is put on weights, and not on activations alone."""
    places = scheme.get("apply") if isinstance(scheme, dict) else None
    if not isinstance(places, list):
        return True  # a transform in a form we do not know is no reason to call the weights plain
    return any(not isinstance(place, dict) or str(place.get("location", "")).startswith("weight") for place in places)
