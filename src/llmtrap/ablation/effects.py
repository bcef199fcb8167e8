"""What variants of a model's weights do to its outputs, on some tokens: divergences, and the change of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from llmtrap.ablation import measures
from llmtrap.ablation.layer_gate import Variant
from llmtrap.ablation.observing import Observer
from llmtrap.ablation.outcome import Outcome, Predictions
from llmtrap.ablation.streaming import StreamedModel

_HIDDEN_BYTES = 96 << 20
"""Hidden states of variants kept at one time; with more, the layers are read again for the rest."""


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
    if not model.causal:
        for k in range(outcome.tokens.shape[0]):
            base = _embedding(outcome, None, k)
            for name in names:
                results[name].cosine.append(float(measures.cosine_distance(base, _embedding(outcome, name, k)).mean()))
        return []
    lines = []
    for k in range(outcome.tokens.shape[0]):
        compared = _Comparison(names, text=text)
        for predictions in outcome.predictions(names, k):
            compared.add(predictions)
        lines.append(compared.finish(results))
    return lines


class _Comparison:
    """One sequence's predictions of variants, held against the model's own as they come."""

    def __init__(self, names: Sequence[str], *, text: bool):
        self._divergence = measures.kullback_leibler_of_logs if text else measures.jensen_shannon_of_logs
        self._text = text
        self._base, self._p = torch.empty(0), torch.empty(0)
        self._own: list[Tensor] = []
        self._apart: dict[str, list[Tensor]] = {name: [] for name in names}
        self._nll: dict[str, list[Tensor]] = {name: [] for name in names}

    def add(self, predictions: Predictions) -> None:
        """Some positions, of the model as it is before those of the variants."""
        name, logs = predictions.variant, predictions.logs
        if name is None:
            self._base, self._p = logs, logs.exp()
        else:
            self._apart[name].append(self._divergence(self._base, logs, self._p))
        if self._text:
            (self._own if name is None else self._nll[name]).append(predictions.nll())

    def finish(self, results: dict[str, Effects]) -> float:
        """Add the sequence's effects to those of the sequences before; returns the model's own loss, 0 off text."""
        own = torch.cat(self._own) if self._text else torch.zeros(1)
        for name, parts in self._apart.items():
            into = results[name]
            (into.kl if self._text else into.j).append(float(torch.cat(parts).mean()))
            if self._text:
                into.nll.append(float((torch.cat(self._nll[name]) - own).mean()))
        return float(own.mean())


def _measure_outside(model: StreamedModel, tokens: Tensor, variant: Variant, into: Effects, *, text: bool) -> None:
    """A variant of an embedding or a head: for each sequence a pass with it beside a pass without."""
    for k in range(tokens.shape[0]):
        one = tokens[k : k + 1]
        with model.run(one) as outcome:
            base = list(outcome.predictions((), 0)) if model.causal else _embedding(outcome, None, 0)
        with model.with_outside(variant.changes), model.run(one) as outcome:
            if isinstance(base, Tensor):
                into.cosine.append(float(measures.cosine_distance(base, _embedding(outcome, None, 0)).mean()))
                continue
            compared = _Comparison([variant.name], text=text)
            for own, changed in zip(base, outcome.predictions((), 0), strict=True):
                compared.add(own)
                compared.add(replace(changed, variant=variant.name))
        compared.finish({variant.name: into})


def _embedding(outcome: Outcome, name: str | None, k: int) -> Tensor:
    """The mean of an encoder's last hidden states over one sequence, [1, width]."""
    return outcome.logits(name, slice(k, k + 1)).float().mean(1)
