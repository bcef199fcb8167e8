"""Divergences against SciPy, their digits for nearly equal outputs, and where the labels change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from llmtrap.ablation.labels import label_of
from llmtrap.ablation.measures import Estimate, jensen_shannon, kullback_leibler_of_logs, next_token_nll


def _probabilities(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 4, (5, 300)))


def test_kullback_leibler_is_scipys() -> None:
    first, second = _probabilities(0), _probabilities(1)
    p, q = torch.softmax(first, -1).numpy(), torch.softmax(second, -1).numpy()
    found = kullback_leibler_of_logs(torch.log_softmax(first, -1), torch.log_softmax(second, -1))
    np.testing.assert_allclose(found.numpy(), rel_entr(p, q).sum(1), rtol=1e-10)


def test_float32_keeps_the_digits_of_a_small_difference() -> None:
    logits = _probabilities(0)
    nudged = logits + 1e-3 * _probabilities(2)
    exact = jensen_shannon(logits, nudged)
    single = jensen_shannon(logits.float(), nudged.float())
    np.testing.assert_allclose(single.numpy(), exact.numpy(), rtol=1e-2)
    assert float(exact.max()) < 1e-4


def test_next_token_nll_is_cross_entropy() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 50)))
    following = torch.randint(50, (5,), generator=torch.Generator().manual_seed(0))
    found = next_token_nll(torch.log_softmax(logits, -1), following)
    expected = torch.nn.functional.cross_entropy(logits[:-1], following, reduction="none")
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("j", "nll", "floor", "tokens", "label"),
    [
        (0.9e-4, None, 0.0, None, "inert"),
        (1.1e-4, None, 0.0, None, "weak"),
        (0.9e-3, None, 0.0, None, "weak"),
        (1.1e-3, None, 0.0, None, "active"),
        (1.1e-3, None, 1.2e-4, None, "inert"),
        (1.1e-3, None, 1.0e-4, None, "active"),
        (0.9e-4, Estimate(0.0051, 0.001), 0.0, None, "needed"),
        (1.1e-3, Estimate(0.0049, 0.001), 0.0, None, "active"),
        (1.1e-3, Estimate(0.0051, 0.002), 0.0, None, "active"),
        (1.1e-3, Estimate(-0.0051, 0.001), 0.0, None, "harmful"),
        (1.1e-3, None, 0.0, 32, "active"),
        (1.1e-3, None, 0.0, 31, None),
    ],
)
def test_labels_change_at_their_thresholds(
    j: float, nll: Estimate | None, floor: float, tokens: int | None, label: str | None
) -> None:
    found, reason = label_of(Estimate(j, 1e-6), nll, floor, tokens)
    assert found == label
    assert (reason is None) == (label is not None)


def test_one_sequence_proves_nothing() -> None:
    assert label_of(Estimate(0.5, None), Estimate(2.0, None), 0.0, None)[0] == "weak"
