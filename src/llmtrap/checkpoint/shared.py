"""Weights under several names that are one matrix: the same bytes of a file, or a head that equals its embedding."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from llmtrap.checkpoint.config import flag
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import ByteRange, Source
from llmtrap.checkpoint.tensors import Skipped, TensorEntry

HEADS = ("lm_head.weight", "output.weight", "embed_out.weight")
"""Ends of the names that an output head has."""

_EMBEDDING = re.compile(r"(.*\.)?(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|shared)\.weight")
_LOCAL = ("folder", "file", "memory")
_FAR_BYTES = 64 << 20
_PIECE = 4 << 20


def take_out_shared(
    source: Source, tensors: dict[str, TensorEntry], skipped: list[Skipped], config: dict[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Keep one of the names under which the same weights are stored, a head's last; returns the others by it.

    Args:
        source: the bytes, to compare a head with its embedding where the configuration ties them.
        tensors: the catalogue's; the other names are taken out.
        skipped: where they go, with the reason.
        config: the parsed config.json.
    """
    places = Counter((entry.span.file, entry.span.start) for entry in tensors.values() if 0 not in entry.shape)
    names: dict[tuple[object, ...], list[str]] = {}
    for name, entry in tensors.items():
        # Nearly every tensor begins where no other does; the dearer comparison is left to the few that do not.
        if 0 not in entry.shape and places[entry.span.file, entry.span.start] > 1:
            names.setdefault((entry.dtype, entry.shape, entry.span, entry.chunks), []).append(name)
    shared: dict[str, tuple[str, ...]] = {}
    for same in names.values():
        kept, *others = sorted(same, key=lambda name: name.endswith(HEADS))
        for name in others:
            del tensors[name]
            reason = f"the same weights as {printable(kept)}, stored once"
            skipped.append(Skipped(printable(name), reason, "buffer"))
        if others:
            shared[kept] = tuple(others)
    if flag(config, "tie_word_embeddings") is True:
        _take_out_tied(source, tensors, skipped, shared)
    return shared


def _take_out_tied(
    source: Source, tensors: dict[str, TensorEntry], skipped: list[Skipped], shared: dict[str, tuple[str, ...]]
) -> None:
    """Take out a head that equals the embedding byte for byte: libraries load the two as one."""
    heads = [name for name in tensors if name.endswith(HEADS)]
    embeddings = [name for name in tensors if _EMBEDDING.fullmatch(name)]
    if len(heads) != 1 or len(embeddings) != 1:
        return
    (head,), (embedding,) = heads, embeddings
    one, other = tensors[head], tensors[embedding]
    if (one.dtype, one.shape) == (other.dtype, other.shape) and not one.chunks and _equal(source, one.span, other.span):
        del tensors[head]
        reason = f"equal to {printable(embedding)} byte for byte, and tied to it by the configuration: one matrix"
        skipped.append(Skipped(printable(head), reason, "buffer"))
        shared[embedding] = (*shared.get(embedding, ()), head)


def _equal(source: Source, one: ByteRange, other: ByteRange) -> bool:
    """Whether two ranges hold the same bytes; large ones are fetched from afar for their own sake alone."""
    if one.size != other.size or (source.identity.kind not in _LOCAL and one.size > _FAR_BYTES):
        return False
    for start in range(0, one.size, _PIECE):
        stop = min(start + _PIECE, one.size)
        first, second = (
            source.read(ByteRange(span.file, span.start + start, span.start + stop)) for span in (one, other)
        )
        if not np.array_equal(first, second):
            return False
    return True
