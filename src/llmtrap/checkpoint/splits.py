"""Where the parts of a fused matrix lie along its output axis: gate and up, or q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtrap.checkpoint.config import integer
from llmtrap.checkpoint.families import Fused
from llmtrap.checkpoint.families.table import Axis
from llmtrap.checkpoint.matrices import Stripes

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "attn_config.kv_n_heads", "n_kv_heads")
_WIDTHS = ("head_dim", "kv_channels", "attention_head_dim", "d_kv", "head_size")


def split_stripes(
    fused: Fused, shape: tuple[int, int], beside: tuple[int, int] | None, config: Mapping[str, Any]
) -> tuple[Axis, dict[str, Stripes]] | None:
    """The output axis and the part of it that each fused matrix takes; None where the sizes do not agree.

    A matrix cut in the wrong place would be measured as if it were one, so that every number must fit: heads of the
    configuration, and for gate and up the matrix that leads back.

    Args:
        fused: how the family fuses.
        shape: rows and columns as stored.
        beside: the shape of the down projection beside a gate and up.
        config: the parsed config.json.
    """
    rows, columns = shape
    told_beside = "gate" in fused.parts and fused.axis is None
    axis = _output_axis(shape, beside) if told_beside else fused.axis or "rows"
    if axis is None:
        return None
    size, inputs = (rows, columns) if axis == "rows" else (columns, rows)
    count = len(fused.parts)
    if fused.layout in ("concat", "heads") and "q" in fused.parts:
        heads = _heads(size, inputs, config, (fused.key_heads,) if fused.key_heads else _KEY_HEADS)
        if heads is None:
            return None
        queries, keys, width = heads
        if fused.layout == "heads":
            return axis, _by_heads(fused, queries, keys, width)
        return axis, _concatenated(fused, [queries * width, keys * width, keys * width])
    if size % count or (fused.layout == "thirds" and size != count * inputs):
        return None
    if fused.layout == "interleaved":
        return axis, {part: Stripes(k, count, 1, size // count) for k, part in enumerate(fused.parts)}
    return axis, _concatenated(fused, [size // count] * count)


def _output_axis(shape: tuple[int, int], down: tuple[int, int] | None) -> Axis | None:
    """The axis that holds gate and up: twice as long as the inputs of the matrix that leads back."""
    if down is None:
        return None
    rows, columns = shape
    if (rows, columns) == (2 * down[1], down[0]):
        return "rows"
    return "columns" if (columns, rows) == (2 * down[0], down[1]) else None


def _concatenated(fused: Fused, sizes: list[int]) -> dict[str, Stripes]:
    stripes, offset = {}, 0
    for part, size in zip(fused.parts, sizes, strict=True):
        stripes[part] = Stripes(offset, size, size, size)
        offset += size
    return stripes


def _heads(
    size: int, inputs: int, config: Mapping[str, Any], key_heads: tuple[str, ...]
) -> tuple[int, int, int] | None:
    """Heads of queries and of keys, and their width, where the configuration and the sizes agree; else None.

    Where the configuration does not say how many heads of keys there are, the size does: (size/width - heads) / 2.
    """
    heads, stated = _number(config, *_HEADS), _number(config, *key_heads)
    width = _number(config, *_WIDTHS)
    if heads is None:
        return None
    if width is None and stated is not None and size % (heads + 2 * stated) == 0:
        width = size // (heads + 2 * stated)
        if width * heads != inputs:
            return None
    width = width or (inputs // heads if inputs % heads == 0 else None)
    if width is None or size % width or (rest := size // width - heads) < 2 or rest % 2:
        return None
    keys = rest // 2
    if heads % keys or (stated is not None and stated != keys and not _is_older_falcon(config, keys)):
        return None
    return heads, keys, width


def _is_older_falcon(config: Mapping[str, Any], keys: int) -> bool:
    """Falcon's first models state as many heads of keys as of queries and have one: `multi_query` says so."""
    return config.get("multi_query") is True and keys == 1


def _by_heads(fused: Fused, heads: int, keys: int, width: int) -> dict[str, Stripes]:
    """Outputs of q, k and v where each group of heads keeps its own together: [group, queries + 2, width]."""
    queries = heads // keys
    stride = (queries + 2) * width
    q, k, v = fused.parts
    return {
        q: Stripes(0, stride, queries * width, heads * width),
        k: Stripes(queries * width, stride, width, keys * width),
        v: Stripes((queries + 1) * width, stride, width, keys * width),
    }


def _number(config: Mapping[str, Any], *keys: str) -> int | None:
    return next((value for key in keys if (value := integer(dict(config), key)) is not None), None)
