"""How far apart two outputs of a network are: Jensen–Shannon and Kullback–Leibler divergence, negative log-likelihood.

The divergences are written in terms of the difference of log-probabilities, so that they keep their digits where the
two distributions are nearly the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LN2 = math.log(2.0)
_LARGE = 20.0  # beyond this exp(d) − 1 is exp(d) to float32, and may overflow


@dataclass(frozen=True)
class Estimate:
    """A mean over sequences and its standard error, which is None for fewer than two sequences."""

    value: float
    se: float | None

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """Mean and standard error of one number a sequence."""
        values = values.double()
        spread = float(values.std()) / math.sqrt(values.numel()) if values.numel() > 1 else None
        return cls(float(values.mean()), spread)

    def exceeds(self, errors: float) -> bool:
        """Whether |value| is more than so many standard errors from 0; with none known it is not."""
        return self.se is not None and abs(self.value) > errors * self.se


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Jensen–Shannon divergence of softmax(first) and softmax(second) over the last axis, in nats: 0 to ln 2.

    ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2 (arXiv 2605.12394, section 6, at T = 1).
    """
    return jensen_shannon_of_logs(torch.log_softmax(first, -1), torch.log_softmax(second, -1))


def jensen_shannon_of_logs(log_p: Tensor, log_q: Tensor, p: Tensor | None = None) -> Tensor:
    """The same of log-probabilities: with d = log q − log p and L = log m − log p, ½ Σ (q (d − L) − p L).

    L is log(½ (1 + exp d)). Whoever compares many q with one p gives p, exp(log_p), too.
    """
    p = log_p.exp() if p is None else p
    d = log_q - log_p
    if float(d.max()) < _LARGE:  # the common case, in half the steps: q is p exp(d)
        grown = torch.expm1(d)
        near = torch.log1p(grown / 2)
        return (d.sub_(near).mul_(grown.add_(1)).sub_(near).mul_(p).sum(-1) / 2).clamp_min(0.0)
    near = torch.log1p(torch.expm1(d.clamp_max(_LARGE)) / 2)
    above_p = torch.where(d < _LARGE, near, d - _LN2)
    below_q = torch.where(d < _LARGE, d - near, torch.full_like(d, _LN2))
    return ((log_q.exp() * below_q - p * above_p).sum(-1) / 2).clamp_min(0.0)


def kullback_leibler_of_logs(log_p: Tensor, log_q: Tensor, p: Tensor | None = None) -> Tensor:
    """KL(p ‖ q) over the last axis, in nats, as Σ p (exp(d) − 1 − d): the first-order terms, which cancel, left out.

    Whoever compares many q with one p gives p, exp(log_p), too.
    """
    p = log_p.exp() if p is None else p
    d = log_q - log_p
    if float(d.max()) < _LARGE:
        return torch.expm1(d).sub_(d).mul_(p).sum(-1).clamp_min(0.0)
    grown = torch.expm1(d.clamp_max(_LARGE))
    # p exp(d) is q: written so where exp(d) alone would overflow
    terms = torch.where(d < _LARGE, p * (grown - d), log_q.exp() - p * (1 + d))
    return terms.sum(-1).clamp_min(0.0)


def next_token_nll(log_p: Tensor, following: Tensor) -> Tensor:
    """Negative log-likelihood of each next token, [m], in nats.

    Args:
        log_p: log-probabilities, [n, vocabulary].
        following: ids of the tokens that follow the first m ≤ n positions, [m].
    """
    return -log_p[: following.numel()].gather(-1, following[:, None].to(log_p.device)).squeeze(-1)


def cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """1 − cosine of vectors along the last axis, in float64."""
    return 1 - torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=-1)
