"""Has a layer learnt digits by heart? Its leading directions as images, and how near they come to training images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.document import Picture, RowSimilarity

Floats = NDArray[np.float64]
_ROWS_SHOWN = 4
_ROWS_COMPARED = 10


def nearest(directions: Floats, images: Floats) -> Floats:
    """For each direction over pixels, its largest |Pearson correlation| with any image.

    Args:
        directions: [k, pixels].
        images: [n, pixels].

    Returns:
        [k] values in [0, 1]; 0 for a constant direction.
    """
    closest: Floats = np.abs(_standard(directions) @ _standard(images).T).max(axis=1)
    return closest


def _standard(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    standard: Floats = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    return standard


def pictures(weights: Mapping[str, Tensor], data: TaskData, phase: str, step: int) -> tuple[Picture, ...]:
    """Leading right singular vector of each layer, taken back to the pixels, and the rows of FC1 that lead it.

    As in arXiv 2602.02859, appendix G: v of W₁ is an image as it is; v of W₂ and W₃ are carried back through the
    layers before them, vᵀW₁ and vᵀW₂W₁. The sign is chosen so that the larger part is positive.
    """
    first, second, third = (weights[f"fc{k}.weight"].double() for k in (1, 2, 3))
    _, _, v1 = torch.linalg.svd(first, full_matrices=False)
    _, _, v2 = torch.linalg.svd(second, full_matrices=False)
    _, _, v3 = torch.linalg.svd(third, full_matrices=False)
    u1 = first @ v1[0]
    leading = torch.argsort(u1.abs(), descending=True)[:_ROWS_SHOWN]
    shown = {
        "leading direction of FC1": v1[0],
        "leading direction of FC2, back to pixels": v2[0] @ first,
        "leading direction of the head, back to pixels": v3[0] @ second @ first,
    } | {f"row {int(unit)} of FC1": first[unit] for unit in leading}
    images = data.train_inputs.double().numpy()
    vectors = np.stack([vector.numpy() for vector in shown.values()])
    vectors *= np.where(np.abs(vectors.min(axis=1)) > vectors.max(axis=1), -1.0, 1.0)[:, None]
    closeness = nearest(vectors, images)
    return tuple(
        Picture(
            phase=phase,
            step=step,
            title=title,
            side=data.side,
            pixels=tuple(float(f"{value:.3g}") for value in vector / (np.abs(vector).max() or 1.0)),
            nearest=float(close),
        )
        for title, vector, close in zip(shown, vectors, closeness, strict=True)
    )


def row_similarity(
    weights: Mapping[str, Tensor], initial: Mapping[str, Tensor], data: TaskData, phase: str, step: int
) -> RowSimilarity:
    """How near the ten largest rows of FC1 come to a training image, in the mean, and those at the start beside."""
    images = data.train_inputs.double().numpy()

    def closeness(matrix: Tensor) -> float:
        rows = matrix.double().numpy()
        largest = np.argsort(np.linalg.norm(rows, axis=1))[::-1][:_ROWS_COMPARED]
        return float(nearest(rows[largest], images).mean())

    return RowSimilarity(
        phase=phase,
        step=step,
        rows=_ROWS_COMPARED,
        mean_nearest=closeness(weights["fc1.weight"]),
        control=closeness(initial["fc1.weight"]),
    )
