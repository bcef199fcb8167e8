"""One layer of a model in a pass: read, run for the model as it is and for every variant, and let go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from llmtrap.ablation.observing import Observer, observed
from llmtrap.ablation.stored_values import Change, Place

if TYPE_CHECKING:
    from llmtrap.ablation.streaming import StreamedModel

_TOKENS_AT_ONCE = 2048  # of variants that run through a layer together


@dataclass(frozen=True)
class Variant:
    """The model with some stored matrices changed. `layer` is the first decoder layer that sees a changed weight.

    None as the layer stands for weights outside the layers: such a variant takes a pass of its own.
    """

    name: str
    changes: Mapping[Place, Change]
    layer: int | None


@dataclass
class PassState:
    """What one forward pass carries through the layers; what each layer was given too, where it `keeps` that.

    Attributes:
        variants: by the layer in which they begin.
        begun: so many of them have begun.
        hidden: their hidden states, [variants, sequences, length, width]: one block for the whole pass. Made anew layer
            by layer, what is let go would leave holes between what stays.
        base: hidden states of the model as it is, after the last layer.
    """

    variants: Sequence[Variant] = ()
    begun: int = 0
    hidden: Tensor | None = None
    base: Tensor | None = None
    observer: Observer | None = None
    replayed: Tensor | None = None
    keeps: bool = False
    kept: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def hidden_of(self, first: int, stop: int) -> Tensor:
        """Hidden states of variants that have begun, [stop − first, sequences, length, width]."""
        if self.hidden is None or stop > self.begun:
            raise RuntimeError("the variant has not begun")
        return self.hidden[first:stop]

    def keep(self, first: int, made: Tensor) -> None:
        """Keep the hidden states, [n, sequences, length, width], of n variants from `first` on."""
        if self.hidden is None:
            self.hidden = made.new_empty((len(self.variants), *made.shape[1:]))
        self.hidden[first : first + made.shape[0]] = made


class LayerGate(nn.Module):
    """Stands in a decoder layer's place: loads it, runs it for the model and each variant, and lets it go."""

    def __init__(self, owner: StreamedModel, number: int, layer: nn.Module):
        super().__init__()
        self._owner = [owner]  # in a list, so that the model does not become a module of its own layer
        self.layer = layer
        self.number = number

    def __getattr__(self, name: str) -> Any:
        """Attributes that a model's forward pass asks its layers for (`attention_type`, …) are the layer's own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's output for the model as it is; variants are carried beside it."""
        owner = self._owner[0]
        state = owner.state
        if state.replayed is not None:
            return self._answer(state.replayed if self.number == len(owner.gates) - 1 else hidden_states)
        if state.keeps:
            state.kept.append((hidden_states, args, kwargs))
        owner.load_layer(self.number)
        try:
            running = state.begun
            # Variants that begin in this layer have changed weights in it: each runs alone.
            while state.begun < len(state.variants) and state.variants[state.begun].layer == self.number:
                with owner.changed(self.number, state.variants[state.begun].changes):
                    made = first_output(self.layer(hidden_states, *args, **kwargs))
                state.keep(state.begun, made[None])
                state.begun += 1
            # All others share the weights of the model as it is: they run in few calls, and experts are read once.
            with observed(self.layer, f"{owner.layer_prefix}.{self.number}.", state.observer):
                output = self.layer(hidden_states, *args, **kwargs)
            size = max(1, _TOKENS_AT_ONCE // max(1, hidden_states.shape[0] * hidden_states.shape[1]))
            for first in range(0, running, size):
                together = state.hidden_of(first, min(first + size, running))
                count, sequences = together.shape[:2]
                more = [_repeated(item, sequences, count) for item in args]
                named = {key: _repeated(item, sequences, count) for key, item in kwargs.items()}
                made = first_output(self.layer(together.flatten(0, 1), *more, **named))
                state.keep(first, made.reshape(count, sequences, *made.shape[1:]))
        finally:
            owner.free_layer(self.number)
        if self.number == len(owner.gates) - 1:
            state.base = first_output(output)
        return output

    def _answer(self, hidden: Tensor) -> Any:
        return (hidden,) if self._owner[0].tuples else hidden


def _repeated(item: Any, sequences: int, times: int) -> Any:
    """An argument of a layer for `times` batches in one: what has one row a sequence is repeated."""
    if isinstance(item, tuple):
        return tuple(_repeated(part, sequences, times) for part in item)
    if isinstance(item, Tensor) and item.dim() > 0 and item.shape[0] == sequences and sequences > 1:
        return item.repeat(times, *([1] * (item.dim() - 1)))
    return item


def of_sequence(item: Any, sequences: int, number: int) -> Any:
    """An argument of a layer for one sequence alone: of what has one row a sequence, its row."""
    if isinstance(item, tuple):
        return tuple(of_sequence(part, sequences, number) for part in item)
    if isinstance(item, Tensor) and item.dim() > 0 and item.shape[0] == sequences:
        return item[number : number + 1]
    return item


def first_output(output: Any) -> Tensor:
    """The hidden states that a layer gives, alone or first of several."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
