"""One seed, many independent streams: data choice, initial weights, order of batches, probes, masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Stream = Literal["data", "init", "batches", "probes", "mask", "ablation"]
_STREAMS: tuple[Stream, ...] = ("data", "init", "batches", "probes", "mask", "ablation")


def numpy_stream(seed: int, stream: Stream) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(np.random.SeedSequence([seed, _STREAMS.index(stream)]))


def torch_stream(seed: int, stream: Stream) -> torch.Generator:
    """A CPU PyTorch generator for one purpose, so that every device starts from the same numbers."""
    import torch

    words = np.random.SeedSequence([seed, _STREAMS.index(stream)]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
