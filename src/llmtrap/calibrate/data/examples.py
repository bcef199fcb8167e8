"""What one run trains and is tested on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaskData:
    """What one run trains and is tested on.

    Attributes:
        train_inputs: images [n, pixels] in [0, 1], or tokens [n, 2 or 3].
        train_labels: [n].
        test_inputs: as `train_inputs`.
        test_labels: [m].
        source: where they came from.
        side: of an image in pixels; 0 for tokens.
        far_inputs: examples outside the training distribution, for the task that has them.
        far_labels: theirs.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    source: str
    side: int = 0
    far_inputs: Tensor | None = None
    far_labels: Tensor | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of the training examples and their labels, by which a run knows its data again."""
        digest = hashlib.sha256()
        for tensor in (self.train_inputs, self.train_labels):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
