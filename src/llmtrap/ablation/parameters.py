"""Which stored tensors make which parameters of a transformers model, and how to read them one at a time.

A checkpoint's names are turned into parameter names by the model's own conversions (`transformers`' renamings and
converters: experts that are merged into one stack, fused projections, older names), so that what is loaded here is what
`from_pretrained` would load. The bytes come through llmtrap's sources and encodings, decoded to float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtrap.ablation.gguf_models import gguf_tensors, is_gguf
from llmtrap.ablation.stored_values import Change, Floats, Place, StoredValues, output_first
from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.encodings import StoredTensor, claim_all
from llmtrap.checkpoint.names import printable
from llmtrap.errors import UnsupportedError

_NUMBERED_EXPERT = re.compile(r"\.experts\.(\d+)\.")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are made together of the same stored tensors: one, or the parts of a fused one.

    `sources` are (checkpoint key, pattern of the converter, stored tensor) in the order in which they are merged;
    `converter` is transformers' own, None where a tensor is only renamed; `adjust` undoes what another file format
    does to the numbers of a tensor.
    """

    target: str
    sources: tuple[tuple[str, str, StoredTensor], ...]
    converter: Any = None
    adjust: Change | None = None

    @property
    def as_stored(self) -> bool:
        """Whether the parameter is the stored tensor, so that its rows can be read one by one."""
        return self.converter is None and self.adjust is None

    def of_expert(self, expert: int) -> ParameterGroup:
        """The group that makes one slice of a stack that is merged of single experts."""
        numbered = [item for item in self.sources if (m := _NUMBERED_EXPERT.search(item[0])) and int(m[1]) == expert]
        return replace(self, sources=tuple(numbered))


@dataclass(frozen=True)
class ParameterTable:
    """Every parameter of a model with the stored tensors that make it.

    Attributes:
        groups: by the name of each parameter they make.
        unused: stored tensors that no parameter takes.
        missing: parameters and persistent buffers that nothing makes.
    """

    values: StoredValues
    config: Any
    groups: dict[str, ParameterGroup]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def parameters_of(self, tensor: str) -> tuple[str, ...]:
        """Names of the parameters that a stored tensor is a source of."""
        return self.targets.get(tensor, ())

    def make(
        self, group: ParameterGroup, model: Any, changes: Mapping[Place, Change] | None = None
    ) -> dict[str, Tensor]:
        """Read, decode and convert: the parameters of a group by name, float32 on the CPU."""
        return self._converted(group, model, (self.values.whole(s, changes or {}) for _, _, s in group.sources))

    def origin(self, group: ParameterGroup, model: Any, parameter: str, position: int) -> tuple[Place, int, int]:
        """Where entry `position` of a flat parameter is stored: the matrix, its row and its column.

        Where parameters are put together of stored matrices, numbers that count the entries take the same way.
        """
        stored = [stored for _, _, stored in group.sources]
        ends = np.cumsum([int(np.prod(item.shape, dtype=np.int64)) for item in stored])
        if not group.as_stored or output_first(stored[0]):
            counted = (
                np.arange(end - np.prod(item.shape), end, dtype=np.float64).reshape(item.shape)
                for item, end in zip(stored, ends, strict=True)
            )
            turned = (
                array.swapaxes(1, 2) if output_first(s) else array for array, s in zip(counted, stored, strict=True)
            )
            made = self._converted(group, model, turned)[parameter]
            position = int(made.reshape(-1)[position])
        number = int(np.searchsorted(ends, position, side="right"))
        shape = stored[number].shape
        *index, row, column = np.unravel_index(position - int(ends[number]) + int(np.prod(shape)), shape)
        return Place(stored[number].name, int(index[0]) if index else None), int(row), int(column)

    def _converted(self, group: ParameterGroup, model: Any, arrays: Iterable[Floats]) -> dict[str, Tensor]:
        if group.converter is None:
            (values,) = arrays
            values = values if group.adjust is None else group.adjust(values)
            return {group.target: torch.from_numpy(np.ascontiguousarray(values))}
        converter = deepcopy(group.converter)
        for (key, pattern, _), values in zip(group.sources, arrays, strict=True):
            converter.add_tensor(group.target, key, pattern, torch.from_numpy(values))
        made: dict[str, Tensor] = {}
        for name, value in converter.convert(group.target, model=model, config=self.config).items():
            tensor = value[0] if isinstance(value, list) else value
            made[name] = tensor.contiguous()
        return made

    def expert(
        self, group: ParameterGroup, model: Any, expert: int, changes: Mapping[Place, Change] | None = None
    ) -> Tensor:
        """One slice of a parameter that is a stack of experts; nothing else of the stack is read."""
        if group.converter is None:
            ((_, _, stored),) = group.sources
            return torch.from_numpy(self.values.slice(stored, expert, changes or {}))
        single = self.make(group.of_expert(expert), model, changes)
        return single[group.target][0]


def parameter_table(checkpoint: Checkpoint, model: Any) -> ParameterTable:
    """Hold a checkpoint's tensors against a model built from its config.json.

    Args:
        checkpoint: opened, headers only.
        model: a `transformers` model, which may be on the meta device.

    Raises:
        UnsupportedError: parameters of the model are not in the checkpoint.
    """
    if is_gguf(checkpoint):
        taken, left = gguf_tensors(checkpoint, model)
        made = [ParameterGroup(target, ((stored.name, target, stored),), None, back) for target, stored, back in taken]
        return _table(checkpoint, model, made, left)
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415 - an extra
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key  # noqa: PLC0415

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    state = model.state_dict()
    collected: dict[str, list[tuple[str, str, StoredTensor]]] = {}
    chosen: dict[str, Any] = {}
    unused = []
    for stored in claim_all(checkpoint.catalogue)[0]:
        key, name, pattern = "", "", None
        for key in _keys(stored):
            name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
            if name not in state and key in state:
                name, pattern = key, None
            if name in state:
                break
        if name not in state:
            unused.append(stored.name)
            continue
        collected.setdefault(name, []).append((key, pattern or key, stored))
        chosen[name] = by_pattern[pattern] if pattern else None
    groups = []
    for name, found in collected.items():
        converter = chosen[name]
        sources = sorted(found if converter is not None else found[-1:], key=lambda item: _natural(item[0]))
        groups.append(ParameterGroup(name, tuple(sources), converter))
    return _table(checkpoint, model, groups, unused)


def _table(
    checkpoint: Checkpoint, model: Any, found: Iterable[ParameterGroup], unused: Sequence[str]
) -> ParameterTable:
    state = model.state_dict()
    groups: dict[str, ParameterGroup] = {}
    targets: dict[str, tuple[str, ...]] = {}
    for group in found:
        for made in _made_by(group, state):
            groups[made] = group
            for _, _, stored in group.sources:
                targets[stored.name] = (*targets.get(stored.name, ()), made)
    tied = set(_tied(model))
    missing = tuple(name for name in state if name not in groups and name not in tied)
    if missing:
        problem = f"{len(missing)} of the model's parameters are not in the checkpoint: {printable(missing[0])}"
        raise UnsupportedError(
            problem + (" and others" if len(missing) > 1 else ""),
            file=checkpoint.catalogue.identity.name,
            remedy="Ablate the checkpoint as its publisher stores it, whole and with the config.json it came with",
        )
    return ParameterTable(StoredValues.of(checkpoint), model.config, groups, tuple(unused), missing, targets)


def _keys(stored: StoredTensor) -> tuple[str, ...]:
    """Names a stored tensor may go by in transformers: its own, or that of the weight which its parts encode."""
    return tuple(dict.fromkeys((stored.name, f"{stored.module}.weight", stored.module)))


def _tied(model: Any) -> Iterable[str]:
    keys = getattr(model, "all_tied_weights_keys", None) or {}
    return keys.keys() if isinstance(keys, Mapping) else keys


def _made_by(group: ParameterGroup, state: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of all parameters that a group makes: the converter's targets in the place of its first one."""
    if group.converter is None or len(group.converter.target_patterns) == 1:
        return (group.target,)
    patterns = [pattern.strip("$^") for pattern in group.converter.target_patterns]
    first = next((p for p in patterns if p in group.target), None)
    if first is None:
        return (group.target,)
    names = (group.target.replace(first, pattern) for pattern in patterns)
    return tuple(name for name in names if name in state)


def _natural(key: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in key.split(".")]
