"""A checkpoint of a few small matrices that takes no time to audit, and sources that kill whoever reads them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from llmtrap.checkpoint import LocalSource
from llmtrap.checkpoint.sources.base import ByteRange, Bytes

SHAPES = {
    "self_attn.q_proj": (96, 64),
    "self_attn.o_proj": (64, 96),
    "mlp.gate_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}
IDS = ("attention.q", "attention.o", "mlp.gate", "mlp.down")


def write_small(folder: Path, layers: int = 2, *, scale: int = 1, seed: int = 0) -> Path:
    """Write a Llama of `layers` shards with four matrices and a norm each; `scale` stretches every side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weight_map = {}
    for layer in range(layers):
        shard = f"model-{layer + 1:05d}-of-{layers:05d}.safetensors"
        tensors: dict[str, NDArray[np.float32]] = {}
        for name, (rows, columns) in SHAPES.items():
            shape = (rows * scale, columns * scale)
            tensors[f"model.layers.{layer}.{name}.weight"] = 0.03 * rng.standard_normal(shape, dtype=np.float32)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = np.ones(64 * scale, np.float32)
        save_file(tensors, folder / shard)
        weight_map |= dict.fromkeys(tensors, shard)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64 * scale,
        "num_hidden_layers": layers,
        "num_attention_heads": 3,
        "head_dim": 32 * scale,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def ids(layers: int = 2) -> set[str]:
    """The ids of the matrices that `write_small` writes."""
    return {f"layers.{layer}.{name}" for layer in range(layers) for name in IDS}


class KillingSource(LocalSource):
    """Kills the process that opens a range of `victim`, or sends it another signal, the first `times` times.

    The marks of past deaths are files in `marks`, since nothing in the process itself lives to tell.
    """

    def __init__(self, path: Path, victim: ByteRange, marks: Path, times: int, number: int = signal.SIGKILL):
        super().__init__(path)
        self.victim, self.marks, self.times, self.number = victim, marks, times, number

    def __getstate__(self) -> dict[str, object]:
        own = {"victim": self.victim, "marks": self.marks, "times": self.times, "number": self.number}
        return {**super().__getstate__(), **own}

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        self._kill_at(span)
        with super().open(span) as data:
            yield data

    def read(self, span: ByteRange) -> Bytes:
        self._kill_at(span)
        return super().read(span)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        self._kill_at(span)
        super().read_into(span, out)

    def _kill_at(self, span: ByteRange) -> None:
        if span.file == self.victim.file and span.start < self.victim.stop and self.victim.start < span.stop:
            deaths = len(list(self.marks.iterdir()))
            if deaths < self.times:
                (self.marks / f"{deaths}").touch()
                os.kill(os.getpid(), self.number)


class WaitingSource(LocalSource):
    """Does not read on from the start of `victim` before the file `go` is there, or a minute has passed."""

    def __init__(self, path: Path, victim: ByteRange, go: Path):
        super().__init__(path)
        self.victim, self.go = victim, go

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "victim": self.victim, "go": self.go}

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        self._wait_at(span)
        super().read_into(span, out)

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        self._wait_at(span)
        with super().open(span) as data:
            yield data

    def _wait_at(self, span: ByteRange) -> None:
        if (span.file, span.start) == (self.victim.file, self.victim.start):
            last = time.monotonic() + 60
            while not self.go.exists() and time.monotonic() < last:
                time.sleep(0.05)


class DyingAtStartSource(LocalSource):
    """Kills a worker as soon as it has this source, before any task; the first `times` workers."""

    def __init__(self, path: Path, marks: Path, times: int):
        super().__init__(path)
        self.marks, self.times, self.home = marks, times, os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "marks": self.marks, "times": self.times, "home": self.home}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        deaths = len(list(self.marks.iterdir()))
        if os.getpid() != self.home and deaths < self.times:
            (self.marks / f"{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
