"""From one stored tensor and its place to its weight matrices: one, one an expert, or the parts of a fused one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from llmtrap.checkpoint.config import integer
from llmtrap.checkpoint.encodings import StoredTensor
from llmtrap.checkpoint.families import Facts
from llmtrap.checkpoint.matrices import Stripes, WeightMatrix
from llmtrap.checkpoint.naming import Place
from llmtrap.checkpoint.splits import split_stripes

_FUSED = ("qkv", "kv", "qk", "qkvz", "gate_up")


class Slicer:
    """Gives a checkpoint's tensors as matrices; knows how fused ones divide, and keeps those that it left whole."""

    def __init__(self, facts: Facts, config: Mapping[str, Any], downs: Mapping[str, tuple[int, int]], *, split: bool):
        """Keep what is needed to find parts.

        Args:
            facts: what the families say.
            config: the parsed config.json.
            downs: id → shape of the matrices that lead back, whose sizes tell how gate and up lie.
            split: whether to give the parts of fused matrices apart.
        """
        self._facts, self._config, self._downs, self._split = facts, config, downs, split
        self.left_whole: dict[str, int] = {}

    def matrices(self, stored: StoredTensor, place: Place, *, stack: bool) -> Iterable[WeightMatrix]:
        """The matrices of one tensor, in the order in which they are stored."""
        if stack or self._split or self._facts.experts_in_rows is not None:
            return self._sliced(stored, place, stack=stack)
        shape = (stored.rows, stored.columns)
        return (WeightMatrix(place.id, place.layer, place.role, place.expert, shape, stored, part=place.part),)

    def _sliced(self, stored: StoredTensor, place: Place, *, stack: bool) -> Iterator[WeightMatrix]:
        for index, slice_, rows in self._slices(stored, place, stack=stack):
            height = stored.rows if rows is None else rows.count
            whole = WeightMatrix(
                slice_.id, slice_.layer, slice_.role, slice_.expert, (height, stored.columns), stored, index, rows,
                part=slice_.part,
            )  # fmt: skip
            yield from self._parts(whole, place) if self._split else (whole,)

    def count(self, stored: StoredTensor, place: Place, *, stack: bool) -> int:
        """How many slices there are."""
        return stored.shape[0] if stack else self._in_rows(stored, place) or 1

    def _in_rows(self, stored: StoredTensor, place: Place) -> int | None:
        """How many experts lie one below the other in this matrix, or None."""
        key = self._facts.experts_in_rows
        if key is None or len(stored.shape) != 2 or not place.role.startswith("experts."):
            return None
        experts = integer(dict(self._config), key)
        return experts if experts is not None and stored.rows % experts == 0 else None

    def _slices(
        self, stored: StoredTensor, place: Place, *, stack: bool
    ) -> Iterator[tuple[int | None, Place, Stripes | None]]:
        """(index on axis 0, place, rows) of every matrix of a stored tensor."""
        if stack:
            for expert in range(stored.shape[0]):
                yield expert, place.for_expert(expert), None
            return
        experts = self._in_rows(stored, place)
        if experts is None:
            yield None, place, None
            return
        height = stored.rows // experts
        for expert in range(experts):
            yield None, place.for_expert(expert), Stripes(expert * height, height, height, height)

    def _parts(self, whole: WeightMatrix, place: Place) -> Iterator[WeightMatrix]:
        """The parts of a fused matrix where it is known how they lie, else the matrix, which is noted."""
        leaf = whole.role.rpartition(".")[2]
        if leaf not in _FUSED:
            yield whole
            return
        fused = self._facts.fusion(whole.role, whole.part, whole.stored.module)
        found = None
        if fused is not None and whole.rows is None:
            beside = self._downs.get(_sibling(place.id, leaf, "down"))
            found = split_stripes(fused, whole.shape, beside, self._config)
        if found is None:
            self.left_whole[place.role] = self.left_whole.get(place.role, 0) + 1
            yield whole
            return
        axis, parts = found
        for part, stripes in parts.items():
            named = replace(whole, id=_sibling(whole.id, leaf, part), role=_sibling(whole.role, leaf, part))
            if axis == "rows":
                yield replace(named, shape=(stripes.count, whole.shape[1]), rows=stripes)
            else:
                yield replace(named, shape=(whole.shape[0], stripes.count), columns=stripes)


def _sibling(name: str, leaf: str, other: str) -> str:
    """The id or role with another last word; a number may follow it."""
    words = name.split(".")
    at = max(k for k, word in enumerate(words) if word == leaf)
    return ".".join((*words[:at], other, *words[at + 1 :]))
