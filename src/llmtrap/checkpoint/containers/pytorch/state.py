"""Which tensors of an unpickled object are the model's: the state dict within what a trainer saved around it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from llmtrap.checkpoint.containers.base import MAX_TENSORS
from llmtrap.checkpoint.containers.pytorch.values import Tensor
from llmtrap.checkpoint.names import MAX_NAME, printable
from llmtrap.checkpoint.tensors import SkipKind, Skipped
from llmtrap.errors import CheckpointError, TargetError

MAX_DEPTH = 50
_MAX_NODES = 2_000_000
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
_BESIDE: tuple[tuple[str, str, SkipKind], ...] = (
    (r".*(optim|adam|sgd|master_?param|fp32_from|exp_avg).*", "state of an optimizer", "buffer"),
    (r"(.*_)?(ema|swa)(_.*)?|.*averag.*", "a moving average of the weights", "file_not_read"),
    (
        r".*(sched|scaler|rng|random|callback|loops?$|amp$|trainer|hyper|args$|config).*",
        "state of a training run",
        "buffer",
    ),
)
"""Patterns of a trainer's keys, what lies under them, and what that counts as in the report."""


def find_state(saved: Any, file: str) -> tuple[dict[str, Tensor], tuple[Skipped, ...]]:
    """The model's tensors by name, and what lies beside them.

    A dictionary of tensors is taken whole, nested ones with dotted names. Where a trainer's dictionary has the state
    dict under one of the usual keys, that is taken (the largest, of several) and the rest is left out; otherwise only
    what a key names as an optimizer's, a moving average's or the run's.

    Raises:
        CheckpointError: nested or shared beyond every state dict.
        TargetError: no tensors at all.
    """
    if isinstance(saved, Tensor):
        return {"tensor": saved}, ()
    parts = dict(_items(saved))
    walk = _Walk(file)
    tensors = {key: dict(walk.tensors(value, key)) for key, value in parts.items() if _holds(value)}
    tensors = {key: found for key, found in tensors.items() if found}
    if not tensors:
        remedy = "Give the file that holds the model's state dict"
        raise TargetError("the pickle holds no tensors", file=file, remedy=remedy)
    wrapped = {key: tensors[key] for key in _WRAPPERS if key in tensors and isinstance(parts[key], dict)}
    if wrapped:
        chosen = max(wrapped, key=lambda key: _entries(wrapped[key]))
        skipped = [
            _beside(key, found, file, (f"not part of the state dict {printable(chosen)!r}", "unmeasured"))
            for key, found in tensors.items()
            if key != chosen
        ]
        # What the dictionary is wrapped in once more: {"model": {"state_dict": …}} of some trainers.
        inner, beneath = find_state(parts[chosen], file)
        return inner, (*skipped, *beneath)
    reasons = {key: reason for key in tensors if (reason := beside_weights(key)) and not isinstance(parts[key], Tensor)}
    if len(reasons) == len(tensors):
        reasons = {}
    kept = {name: tensor for key, found in tensors.items() if key not in reasons for name, tensor in found.items()}
    return kept, tuple(_beside(key, tensors[key], file, reason) for key, reason in reasons.items())


def _beside(key: str, found: dict[str, Tensor], file: str, otherwise: tuple[str, SkipKind]) -> Skipped:
    reason, kind = beside_weights(key) or otherwise
    count = f"{len(found)} tensors" if len(found) > 1 else "1 tensor"
    parameters = 0 if kind == "file_not_read" else _entries(found)
    return Skipped(f"{printable(key)} (in {printable(file)})", f"{reason}: {count}", kind, parameters)


def beside_weights(key: str) -> tuple[str, SkipKind] | None:
    """What lies under a key that is not the model's, and what it counts as."""
    matching = ((what, kind) for pattern, what, kind in _BESIDE if re.fullmatch(pattern, key, re.IGNORECASE))
    return next(matching, None)


def _entries(found: dict[str, Tensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in found.values())


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(place), item) for place, item in enumerate(value))


class _Walk:
    """Finds tensors in nested values; shared parts are walked again, so what is walked is counted."""

    def __init__(self, file: str):
        self._file = file
        self._nodes = 0
        self._found = 0

    def tensors(self, value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
        """Every tensor in a value, with the keys that lead to it."""
        pending = [(name, value, 0)]
        while pending:
            name, value, depth = pending.pop()
            if isinstance(value, Tensor):
                self._found += 1
                yield name, value
            else:
                self._nodes += 1 + len(value)
                self._check(depth, name)
                children = [(f"{name}.{key}", item, depth + 1) for key, item in _items(value) if _holds(item)]
                pending += reversed(children)
            self._check(depth, name)

    def _check(self, depth: int, name: str) -> None:
        large = self._nodes > _MAX_NODES or self._found > MAX_TENSORS
        if large or depth > MAX_DEPTH or len(name) > MAX_NAME:
            problem = "the pickle's values are nested or shared beyond every state dict"
            raise CheckpointError(problem, file=self._file, remedy="Do not use this file")


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | Tensor)
