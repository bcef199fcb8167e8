"""What the two configurations say differently: with another config.json the same weights compute something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmtrap.report.formatting import plural, printable

_ASIDE = {
    "_name_or_path", "architectures", "dtype", "finetuning_task", "id2label", "label2id", "problem_type",
    "quantization_config", "torch_dtype", "transformers_version", "use_cache", "vocab_size",
}  # fmt: skip
"""Keys of no weight in what a model computes, and those of which rules speak: its storage and its vocabulary."""
_DEEPEST = 4
_MOST_NAMED = 6


def configuration_notes(now: dict[str, Any], was: dict[str, Any]) -> tuple[str, ...]:
    """A note that names the keys which both configurations have with other values; none where there are none.

    Args:
        now: the target's parsed config.json.
        was: the base's.
    """
    names = list(_differing(now, was, ""))
    if not names:
        return ()
    named = ", ".join(printable(name, 80) for name in names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
    values = plural(len(names), "value")
    return (f"config.json differs from the base's in {values}, which no rule judges: {named}",)


def _differing(now: dict[str, Any], was: dict[str, Any], place: str) -> Iterator[str]:
    for key in sorted(now.keys() & was.keys()):
        if key in _ASIDE or key.endswith("_token_id"):
            continue
        mine, theirs = now[key], was[key]
        if isinstance(mine, dict) and isinstance(theirs, dict) and place.count(".") < _DEEPEST:
            yield from _differing(mine, theirs, f"{place}{key}.")
        elif mine != theirs:
            yield f"{place}{key}"
