"""Massive activations: one observed pass shows which entries carry a spike from an input channel to an output channel.

After the way in which 'super weights' are found (arXiv 2411.07191), on the probe instead of a prompt: an entry is a
suspect where both channels stand far out of the others and the entry's own product carries most of the spike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from llmtrap.ablation.candidates import Candidate, bulk_of_matrix, entry_candidate, writes_residual
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import Source, WeightMatrix

STANDS_OUT = 10.0
"""A channel's largest |activation| in medians of those of all channels."""
CARRIES = 0.5
"""Share of the output's spike that the entry itself must make."""


@dataclass(frozen=True)
class Spike:
    """The largest activation of a matrix: channels, values, and how far each channel stands out of the others."""

    column: int
    row: int
    input: float
    output: float
    stands_out: float


class SpikeObserver:
    """Keeps the largest spike of every matrix, and how many tokens went to each expert."""

    def __init__(self, model: StreamedModel):
        self._model = model
        self.spikes: dict[str, Spike] = {}
        self.counts: dict[str, Tensor] = {}

    def linear(self, parameter: str, inputs: Tensor, outputs: Tensor) -> None:
        """Look for the largest activation."""
        x, y = inputs.reshape(-1, inputs.shape[-1]), outputs.reshape(-1, outputs.shape[-1])
        token, row = divmod(int(y.abs().argmax()), y.shape[-1])
        column = int(x[token].abs().argmax())
        rest_in, rest_out = x.abs().amax(0).median(), y.abs().amax(0).median()
        least = min(float(x[token, column].abs() / rest_in), float(y[token, row].abs() / rest_out))
        if least == least and least >= STANDS_OUT:
            self.spikes[parameter] = Spike(column, row, float(x[token, column]), float(y[token, row]), least)

    def experts(self, module: str, chosen: Tensor) -> None:
        """Count the tokens of each expert."""
        counted = torch.bincount(chosen.reshape(-1).cpu())
        known = self.counts.get(module)
        self.counts[module] = counted if known is None else _sum(known, counted)

    def reached(self, matrix: WeightMatrix) -> int:
        """How many tokens of the observed passes went to the expert that this matrix belongs to."""
        expert = -1 if matrix.expert is None else matrix.expert
        for parameter in self._model.table.parameters_of(matrix.tensor):
            counted = self.counts.get(parameter.rpartition(".")[0])
            if counted is not None and 0 <= expert < counted.numel():
                return int(counted[expert])
        return 0


def suspects(observer: SpikeObserver, matrices: Iterable[WeightMatrix], source: Source) -> list[Candidate]:
    """Entries that carry most of a spike, of matrices that write into the residual stream."""
    found = []
    for matrix in matrices:
        if not writes_residual(matrix) or matrix.index is not None:
            continue
        for parameter in observer._model.table.parameters_of(matrix.tensor):
            spike = observer.spikes.get(parameter)
            if spike is None:
                continue
            transposed = observer._model.transposed(parameter)
            row, column = (spike.column, spike.row) if transposed else (spike.row, spike.column)
            if row >= matrix.shape[0] or column >= matrix.shape[1]:
                continue
            weights = matrix.read(source)
            value = float(weights[row, column])
            if abs(value * spike.input) >= CARRIES * abs(spike.output):
                found.append(entry_candidate(matrix, bulk_of_matrix(matrix, source), row, column, value, "activation"))
    return found


def _sum(first: Tensor, second: Tensor) -> Tensor:
    longer, shorter = (first, second) if first.numel() >= second.numel() else (second, first)
    total = longer.clone()
    total[: shorter.numel()] += shorter
    return total
