"""What a pass over the layers leaves: hidden states, and the predictions that the model's own head makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llmtrap.ablation import measures
from llmtrap.ablation.layer_gate import PassState

if TYPE_CHECKING:
    from llmtrap.ablation.streaming import StreamedModel

_LOGITS_AT_ONCE = 1 << 25
"""Logits made by one call of the head (128 MiB): its weights are read once for as many variants as that holds, and for
as many positions where there are few variants. A large head is read from the disk at each call."""


@dataclass(frozen=True)
class Predictions:
    """What the model predicts at some positions of one sequence.

    Attributes:
        variant: which; None is the model as it is.
        logs: log-probabilities, [positions, vocabulary], float32.
        following: ids of the tokens that follow; at the end of the sequence one fewer than positions.
    """

    variant: str | None
    logs: Tensor
    following: Tensor

    def nll(self) -> Tensor:
        """Negative log-likelihood of what follows, nats, a number a token."""
        return measures.next_token_nll(self.logs, self.following)


@dataclass
class Outcome:
    """The hidden states after the last layer, of the model and of each variant."""

    owner: StreamedModel
    tokens: Tensor
    state: PassState

    def hidden(self, variant: str | None) -> Tensor:
        """Hidden states after the last layer, [sequences, length, width]."""
        if variant is not None:
            number = self._numbers[variant]
            return self.state.hidden_of(number, number + 1)[0]
        if self.state.base is None:
            raise RuntimeError("the pass did not reach the last layer")
        return self.state.base

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {variant.name: number for number, variant in enumerate(self.state.variants)}

    def logits(self, variant: str | None, sequences: slice = slice(None)) -> Tensor:
        """Logits of some sequences, [n, length, vocabulary], by the model's own last norm and head."""
        return self.logits_of(self.hidden(variant)[sequences])

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Logits that these hidden states after the last layer give; of an encoder, its last hidden states.

        Args:
            hidden: [sequences, length, width]: what follows the layers looks at each position alone.
        """
        owner = self.owner
        owner.state.replayed = hidden
        try:
            tokens = self.tokens.new_zeros(hidden.shape[:2])  # the layers that they would go into are passed over
            output = owner.model(input_ids=tokens, use_cache=False)
        finally:
            owner.state.replayed = None
        logits: Tensor = output.logits if owner.causal else output.last_hidden_state
        return logits

    def predictions(self, variants: Sequence[str], sequence: int) -> Iterator[Predictions]:
        """The predictions of a sequence, some positions at a time: of the model as it is, then of every variant."""
        tokens, vocabulary = self.tokens[sequence], self.owner.vocabulary
        names = (None, *variants)
        rows = max(1, _LOGITS_AT_ONCE // vocabulary)
        step = min(tokens.numel(), max(1, rows // len(names)))
        size = max(1, rows // step)
        for start in range(0, tokens.numel(), step):
            stop = start + step
            for first in range(0, len(names), size):
                together = names[first : first + size]
                hidden = torch.stack([self.hidden(name)[sequence, start:stop] for name in together])
                for name, logits in zip(together, self.logits_of(hidden), strict=True):
                    yield Predictions(name, torch.log_softmax(logits.float(), -1), tokens[start + 1 : stop + 1])
