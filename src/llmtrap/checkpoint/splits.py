"""Where the parts of a fused matrix lie along its output axis: gate and up, or q, k and v."""

from __future__ import annotations

from typing import Any

from llmtrap.checkpoint.families.table import Family, Split
from llmtrap.checkpoint.matrices import Stripes


def split_stripes(
    split: Split | None, family: Family, config: dict[str, Any], rows: int, columns: int
) -> dict[str, Stripes]:
    """The part of the output axis that each fused matrix takes; empty where that cannot be said.

    A split that needs head counts is only made where the configuration has them and they fit the shape exactly: a
    matrix cut in the wrong place would be measured as if it were one.

    Args:
        split: how the family fuses, or None.
        family: where the head counts are in the configuration.
        config: the parsed config.json.
        rows: rows as stored.
        columns: columns as stored.
    """
    if split is None:
        return {}
    size = rows if split.axis == "rows" else columns
    count = len(split.parts)
    if split.layout == "heads":
        return _by_heads(split, family, config, size)
    if split.layout == "concat" and split.attention:
        return _concatenated(split, _attention_sizes(family, config, size))
    if size % count:
        return {}
    if split.layout == "interleaved":
        return {part: Stripes(k, count, 1, size // count) for k, part in enumerate(split.parts)}
    return _concatenated(split, [size // count] * count)


def _concatenated(split: Split, sizes: list[int]) -> dict[str, Stripes]:
    stripes, offset = {}, 0
    for part, size in zip(split.parts, sizes, strict=False):
        stripes[part] = Stripes(offset, size, size, size)
        offset += size
    return stripes


def _attention_sizes(family: Family, config: dict[str, Any], size: int) -> list[int]:
    """Outputs of q, k and v where they follow one another; empty where the configuration does not fit."""
    heads, kv_heads = _head_counts(family, config)
    if heads is None or kv_heads is None or size % (heads + 2 * kv_heads):
        return []
    width = size // (heads + 2 * kv_heads)
    stated = family.number(config, *family.head_dim)
    if stated is not None and stated != width:
        return []
    return [heads * width, kv_heads * width, kv_heads * width]


def _by_heads(split: Split, family: Family, config: dict[str, Any], size: int) -> dict[str, Stripes]:
    """Outputs of q, k and v where each group of heads keeps its own together: [group, queries + 2, width]."""
    heads, kv_heads = _head_counts(family, config)
    if heads is None or kv_heads is None or heads % kv_heads or size % (heads + 2 * kv_heads):
        return {}
    width = size // (heads + 2 * kv_heads)
    queries = heads // kv_heads
    stride = (queries + 2) * width
    q, k, v = split.parts
    return {
        q: Stripes(0, stride, queries * width, heads * width),
        k: Stripes(queries * width, stride, width, kv_heads * width),
        v: Stripes((queries + 1) * width, stride, width, kv_heads * width),
    }


def _head_counts(family: Family, config: dict[str, Any]) -> tuple[int | None, int | None]:
    heads = family.number(config, *family.heads)
    return heads, family.number(config, *family.kv_heads) or heads
