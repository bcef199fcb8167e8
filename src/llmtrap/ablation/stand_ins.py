"""What stands in the place of weights that are too large to hold: experts one at a time, embeddings by rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llmtrap.ablation.parameters import ParameterGroup, ParameterTable

HELD_PARAMETERS = 1 << 26
"""Embeddings of more entries than this (256 MiB of float32) are not held, but read row by row as they are needed."""


class ExpertStack:
    """A parameter [experts, …] whose slices are read when they are asked for."""

    def __init__(self, read: Callable[[int], Tensor], shape: tuple[int, ...]):
        self._read = read
        self.shape = shape

    def __getitem__(self, expert: Any) -> Tensor:
        """The weights of one expert."""
        return self._read(int(expert))


class StreamedEmbedding(nn.Module):
    """An embedding whose rows are read as the tokens need them."""

    def __init__(self, table: ParameterTable, group: ParameterGroup, scale: Tensor | float = 1.0):
        super().__init__()
        self._table, self.group, self._scale = table, group, scale

    def forward(self, tokens: Tensor) -> Tensor:
        """Rows of the embedding, [sequences, length, width]."""
        distinct, places = torch.unique(tokens, return_inverse=True)
        ((_, _, stored),) = self.group.sources
        rows = self._table.values.rows(stored, distinct.tolist()).to(tokens.device)
        return rows[places] * self._scale


class StreamedLinear(nn.Module):
    """A head whose weight is read in blocks of rows."""

    def __init__(self, table: ParameterTable, group: ParameterGroup, bias: Tensor | None):
        super().__init__()
        self._table, self.group, self.bias = table, group, bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden Wᵀ + bias."""
        ((_, _, stored),) = self.group.sources
        output = hidden.new_empty((*hidden.shape[:-1], stored.rows))
        step = max(1, (HELD_PARAMETERS >> 2) // stored.columns)
        for start in range(0, stored.rows, step):
            stop = min(start + step, stored.rows)
            block = self._table.values.block(stored, start, stop).to(hidden.device)
            output[..., start:stop] = hidden @ block.T
        return output if self.bias is None else output + self.bias


def stand_in(table: ParameterTable, module: nn.Module, group: ParameterGroup) -> nn.Module:
    """What reads a large embedding or head as it is needed."""
    if isinstance(module, nn.Embedding):
        return StreamedEmbedding(table, group, getattr(module, "embed_scale", 1.0))
    return StreamedLinear(table, group, getattr(module, "bias", None))


def is_stack(layer: nn.Module, name: str) -> bool:
    """Whether a parameter is a stack of experts' matrices, to be read one at a time."""
    if "experts" not in name.split("."):
        return False
    shape = value_of(layer, name).shape
    return len(shape) == 3


def value_of(module: nn.Module, name: str) -> Any:
    """A parameter, a buffer or a stack by its dotted name."""
    parent, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(parent), leaf)


def put(module: nn.Module, name: str, value: Any) -> None:
    """Set a parameter, a buffer or a stack by its dotted name."""
    parent, _, leaf = name.rpartition(".")
    owner = module.get_submodule(parent)
    if isinstance(value, ExpertStack):
        owner._parameters.pop(leaf, None)
        object.__setattr__(owner, leaf, value)
        return
    if leaf in vars(owner) and isinstance(vars(owner)[leaf], ExpertStack):
        object.__delattr__(owner, leaf)
    if leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        owner._parameters[leaf] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Set a module by its dotted name."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)
