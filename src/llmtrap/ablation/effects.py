"""What variants of a model's weights do to its outputs, on some tokens: divergences, and the change of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmtrap.ablation import measures
from llmtrap.ablation.layer_gate import Variant
from llmtrap.ablation.observing import Observer
from llmtrap.ablation.streaming import Outcome, StreamedModel

_HIDDEN_BYTES = 96 << 20
"""Hidden states of variants kept at one time; with more, the layers are read again for the rest."""
_ENTRIES_AT_ONCE = 1 << 20
"""Log-probabilities compared at one time: what is made of them stays in the processor's cache."""


@dataclass
class Effects:
    """Effects of one variant, one number a sequence: nats a token, or 1 − cosine."""

    j: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)


def measure_effects(
    model: StreamedModel,
    tokens: Tensor,
    variants: Sequence[Variant],
    *,
    text: bool = False,
    observer: Observer | None = None,
) -> tuple[dict[str, Effects], list[float]]:
    """Run the model as it is and every variant.

    Args:
        model: built.
        tokens: [sequences, length].
        variants: by name; those within the layers share passes.
        text: whether the tokens are real text: KL and the change of the loss are taken, else J.
        observer: told what goes through the model as it is, in the first pass.

    Returns:
        The effects of each variant, and the negative log-likelihood of each sequence under the model as it is (text).
    """
    results = {variant.name: Effects() for variant in variants}
    nll: list[float] = []
    inside = [variant for variant in variants if variant.layer is not None]
    size = max(1, _HIDDEN_BYTES // (tokens.numel() * model.width * 4))
    groups = [inside[k : k + size] for k in range(0, len(inside), size)] or [[]]
    for number, group in enumerate(groups):
        with model.run(tokens, group, observer if number == 0 else None) as outcome:
            lines = _compare(model, outcome, [v.name for v in group], results, text=text)
        nll = nll or lines
    for variant in variants:
        if variant.layer is None:
            _measure_outside(model, tokens, variant, results[variant.name], text=text)
    return results, nll


def _compare(
    model: StreamedModel, outcome: Outcome, names: Sequence[str], results: dict[str, Effects], *, text: bool
) -> list[float]:
    """Hold the outputs of variants against the model's own, one sequence at a time."""
    nll = []
    for k in range(outcome.tokens.shape[0]):
        one = slice(k, k + 1)
        base, tokens = _output(model, outcome, None, one), outcome.tokens[one]
        nll.append(float(measures.next_token_nll(base, tokens).mean()) if text else 0.0)
        for name in names:
            _add(results[name], base, _output(model, outcome, name, one), tokens, causal=model.causal, text=text)
    return nll


def _measure_outside(model: StreamedModel, tokens: Tensor, variant: Variant, into: Effects, *, text: bool) -> None:
    """A variant of an embedding or a head: for each sequence a pass with it beside a pass without."""
    for k in range(tokens.shape[0]):
        one = tokens[k : k + 1]
        with model.run(one) as outcome:
            base = _output(model, outcome, None, slice(0, 1)).clone()
        with model.with_outside(variant.changes), model.run(one) as outcome:
            _add(into, base, _output(model, outcome, None, slice(0, 1)), one, causal=model.causal, text=text)


def _output(model: StreamedModel, outcome: Outcome, name: str | None, one: slice) -> Tensor:
    made = outcome.logits(name, one).float()
    return torch.log_softmax(made, -1) if model.causal else made.mean(1)


def _add(into: Effects, base: Tensor, changed: Tensor, tokens: Tensor, *, causal: bool, text: bool) -> None:
    if not causal:
        into.cosine.append(float(measures.cosine_distance(base, changed).mean()))
        return
    if text:
        change = measures.next_token_nll(changed, tokens) - measures.next_token_nll(base, tokens)
        into.nll.append(float(change.mean()))
    divergence = measures.kullback_leibler_of_logs if text else measures.jensen_shannon_of_logs
    parts = [divergence(base[:, piece], changed[:, piece]) for piece in _pieces(base)]
    (into.kl if text else into.j).append(float(torch.cat(parts, 1).mean()))


def _pieces(output: Tensor) -> Iterator[slice]:
    """Positions of one sequence's output, [1, length, vocabulary], that are compared together."""
    step = max(1, _ENTRIES_AT_ONCE // output.shape[-1])
    return (slice(start, start + step) for start in range(0, output.shape[1], step))
