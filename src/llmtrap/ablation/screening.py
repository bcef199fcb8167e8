"""Which entries of a whole model might matter: ½ δ² F of every entry, from one backward pass over the layers.

F is the diagonal of the Fisher information: the mean square of the score, the gradient of log p(y) with y drawn from
the model's own prediction. Setting an entry to its mean, a change by δ, then changes predictions by KL ≈ ½ δ² F in the
first order (Kunstner et al., arXiv 1905.12558, sections 2 and 3). It screens, and an ablation measures: for the entries
that destroy a model the first order is wrong (docs/ablation.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llmtrap.ablation.candidates import Candidate, bulk_of_matrix, entry_candidate, place_of
from llmtrap.ablation.layer_gate import first_output, of_sequence
from llmtrap.ablation.outcome import Outcome
from llmtrap.ablation.stored_values import Place
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.errors import UnsupportedError
from llmtrap.spectra.certificate import Bulk

MOST_IN_A_LAYER = 1 << 28
"""Parameters of a layer (1 GiB of float32), which is held with the gradients of two sequences' worth."""


@dataclass(frozen=True)
class ScreenedEntry:
    """One entry of a stored matrix, and ½ δ² F in nats a token."""

    place: Place
    row: int
    column: int
    score: float


def screen(model: StreamedModel, tokens: Tensor, most: int, seed: int) -> list[ScreenedEntry]:
    """The entries of all matrices in the layers with the largest scores, largest first.

    Every sequence gives one draw of the score of all its positions: draws at different positions are independent given
    the tokens, so the square of their sum is that of each, added, in the mean.

    Args:
        model: a causal language model.
        tokens: [sequences, length].
        most: at most so many entries.
        seed: of the draws.

    Raises:
        UnsupportedError: no language model, or one whose layers are too large to be held with their gradients.
    """
    if not model.causal:
        raise UnsupportedError("an encoder predicts no token", remedy="Leave out --screen fisher")
    generator = torch.Generator().manual_seed(seed)
    best: list[tuple[float, str, int]] = []
    with model.run(tokens, for_gradients=True) as outcome:
        gradients = [_of_head(outcome, k, generator) for k in range(tokens.shape[0])]
        for number in reversed(range(len(model.gates))):
            size = sum(parameter.numel() for parameter in model.gates[number].layer.parameters())
            if size > MOST_IN_A_LAYER:
                problem = f"a layer of {size:,} parameters: too large to be held with its gradients"
                raise UnsupportedError(problem, remedy="Leave out --screen fisher; large entries are tried without it")
            try:
                leaves = model.load_leaves(number)
                squares = _backwards(model, number, list(leaves.values()), gradients)
                for (name, values), square in zip(leaves.items(), squares, strict=True):
                    best += _largest(name, values.detach(), square / tokens.numel(), most)
            finally:
                model.free_layer(number)
            best = sorted(best, reverse=True)[:most]
    return [ScreenedEntry(*_origin(model, name, position), score) for score, name, position in best]


def _of_head(outcome: Outcome, k: int, generator: torch.Generator) -> Tensor:
    """Gradient of the drawn tokens' log-probabilities, by the hidden states after the last layer."""
    hidden = outcome.hidden(None)[k : k + 1].detach().requires_grad_()
    with torch.enable_grad():
        logs = torch.log_softmax(outcome.logits_of(hidden).float(), -1)[0]
        drawn = torch.multinomial(logs.detach().exp().cpu(), 1, generator=generator).to(logs.device)
        total = logs.gather(-1, drawn).sum()
    (gradient,) = torch.autograd.grad(total, hidden)
    return gradient


def _backwards(model: StreamedModel, number: int, leaves: Sequence[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Squares of the gradients by a layer's matrices, summed over sequences; `gradients` become those by its input."""
    hidden, args, kwargs = model.state.kept[number]
    squares = [torch.zeros_like(leaf) for leaf in leaves]
    for k in range(len(gradients)):
        into = hidden[k : k + 1].detach().requires_grad_()
        with torch.enable_grad():
            more: dict[str, Any] = {key: of_sequence(item, len(gradients), k) for key, item in kwargs.items()}
            made = model.gates[number].layer(into, *[of_sequence(item, len(gradients), k) for item in args], **more)
            found = torch.autograd.grad(
                first_output(made),
                [into, *leaves],
                gradients[k],
                retain_graph=True,
                allow_unused=True,
            )
        gradients[k] = found[0]
        for square, gradient in zip(squares, found[1:], strict=True):
            if gradient is not None:  # None: no token went there
                square.addcmul_(gradient, gradient)
    return squares


def _largest(name: str, values: Tensor, fisher: Tensor, most: int) -> list[tuple[float, str, int]]:
    """The highest scores of one parameter, with their positions."""
    scores = ((values - values.mean((-2, -1), keepdim=True)).square_() * fisher / 2).reshape(-1)
    top = torch.topk(scores, min(most, scores.numel()))
    found = zip(top.values.tolist(), top.indices.tolist(), strict=True)
    return [(score, name, position) for score, position in found if score > 0]


def _origin(model: StreamedModel, name: str, position: int) -> tuple[Place, int, int]:
    return model.table.origin(model.table.groups[name], model.model, name, position)


def screened(found: Sequence[ScreenedEntry], matrices: Iterable[WeightMatrix], source: Source) -> list[Candidate]:
    """The screened entries as candidates."""
    by_place = {place_of(matrix): matrix for matrix in matrices}
    bulks: dict[Place, Bulk] = {}
    candidates = []
    for entry in found:
        matrix = by_place.get(entry.place)
        if matrix is None:  # a table that is no weight matrix
            continue
        if entry.place not in bulks:
            bulks[entry.place] = bulk_of_matrix(matrix, source)
        value = float(matrix.read(source)[entry.row, entry.column])
        candidate = entry_candidate(matrix, bulks[entry.place], entry.row, entry.column, value, "fisher")
        candidates.append(replace(candidate, screened=entry.score))
    return candidates
