"""Who looks on while a layer runs: inputs and outputs of its matrices, and which experts the tokens go to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from llmtrap.ablation.stand_ins import ExpertStack


class Observer(Protocol):
    """Told of the inputs and outputs of modules while the model runs as it is."""

    def linear(self, parameter: str, inputs: Tensor, outputs: Tensor) -> None:
        """One matrix was applied: its parameter's name, [.., in] and [.., out]."""

    def experts(self, module: str, chosen: Tensor) -> None:
        """Tokens were sent to experts: the module's name, and the experts' numbers."""


@contextmanager
def observed(layer: nn.Module, prefix: str, observer: Observer | None) -> Iterator[None]:
    """Tell an observer what goes through the modules of a loaded layer, until the block ends."""
    if observer is None:
        yield
        return
    handles = []
    for name, module in layer.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(module, nn.Embedding):
            handles.append(module.register_forward_hook(_tell_linear(observer, f"{prefix}{name}.weight")))
        elif any(isinstance(value, ExpertStack) for value in vars(module).values()):
            handles.append(module.register_forward_pre_hook(_tell_experts(observer, prefix + name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell_linear(observer: Observer, name: str) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(output, Tensor):
            observer.linear(name, inputs[0], output)

    return hook


def _tell_experts(observer: Observer, name: str) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for item in inputs:
            if isinstance(item, Tensor) and not item.is_floating_point():
                observer.experts(name, item)

    return hook
