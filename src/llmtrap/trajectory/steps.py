"""At which step of training a checkpoint was saved, read from its name as trainers and hub revisions give it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_BEFORE, _AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9.])"
# checkpoint-500 (transformers), epoch=0-step=500.ckpt (Lightning), global_step500 (DeepSpeed), iter_0000500 (Megatron),
# step143000 (Pythia), stage1-step1000-tokens3B (OLMo), intermediate-step-1431k-3T (TinyLlama)
_STEP = re.compile(
    rf"{_BEFORE}(?:global[-_]?)?(?:step|checkpoint|ckpt|iter|iteration)s?[-_=]?(\d{{1,15}})([kKmM]?){_AFTER}"
)
_EPOCH = re.compile(rf"{_BEFORE}epoch[-_=]?(\d{{1,15}})(){_AFTER}")
_PLAIN = re.compile(r"(\d{1,15})()")
_STAGE = re.compile(rf"{_BEFORE}(stage|ingredient)[-_=]?(\d{{1,6}}){_AFTER}")
_SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".gguf")
_MOST_STEPS = 10**15  # more is the number of something else
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, order=True)
class Step:
    """A place in a run. `stage` counts what starts the count anew: OLMo's stages, and the ingredients within one."""

    stage: tuple[int, ...]
    step: int

    @property
    def label(self) -> str:
        """`1000`, or `stage 2.1, step 1000`."""
        return f"stage {'.'.join(map(str, self.stage))}, step {self.step}" if self.stage else str(self.step)


def step_of(name: str) -> Step | None:
    """The step that a checkpoint's or a revision's name gives; None where it gives none.

    Args:
        name: a path or a revision; its last part counts.
    """
    text = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    for suffix in _SUFFIXES:
        text = text.removesuffix(suffix)
    found = _STEP.search(text) or _EPOCH.search(text) or _PLAIN.fullmatch(text)
    if found is None:
        return None
    number, times = found.groups()
    step = int(number) * _TIMES[times.lower()]
    return Step(tuple(int(count) for _, count in _STAGE.findall(text)), step) if step <= _MOST_STEPS else None


def in_order(items: Iterable[T], names: Sequence[str]) -> list[T]:
    """The items by the steps of their names; as they were given where one of them has none."""
    steps = [step_of(name) for name in names]
    given = list(items)
    if any(step is None for step in steps):
        return given
    return [given[k] for k in sorted(range(len(given)), key=lambda k: (steps[k], k))]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if most >= len(items):
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
