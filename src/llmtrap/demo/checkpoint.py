"""Writing the demo: a GPT-OSS in small, layout and all, with traps of every cause in known places."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from llmtrap.demo import mxfp4, planting
from llmtrap.demo.layout import (
    GptOssShape,
    TensorSpec,
    config_document,
    cut_shards,
    index_document,
    matrix_id,
    shard_name,
    tensor_specs,
)
from llmtrap.demo.manifest import Cause, DemoManifest, PlantedTrap
from llmtrap.errors import OutputError

DEMO_SHAPE = GptOssShape(
    layers=6, experts=4, hidden=256, intermediate=256, heads=6, kv_heads=2, head_dim=64, vocabulary=2048
)
# A limit at which the third cut falls between one layer's expert blocks and their scales, as a reader must expect.
DEMO_SHARD_BYTES = 2_320_000
ENTRY_SCALE = 0.03  # standard deviation of the weights, about that of the published model's

PLANTED: dict[str, tuple[Cause, float]] = {
    "layers.0.attention.o": ("entry", 2.5),
    "layers.1.experts.2.down": ("entry", 3.0),
    "layers.2.attention.q": ("mean_shift", 2.5),
    "layers.3.experts.0.gate_up": ("mean_shift", 2.0),
    "layers.4.experts.1.gate_up": ("heavy_tail", 1.0),
    "layers.5.attention.o": ("heavy_tail", 1.0),
    "embedding": ("entry", 2.0),
    "unembedding": ("heavy_tail", 1.0),
}
"""Cause and strength (in units of its limit) by matrix id; the rest of the matrices have no trap."""

WELL_TRAINED = (2.3, 5.5)
ALPHAS = {"layers.5.experts.3.down": 1.8, "layers.0.attention.q": 7.5}
"""Exponents of the two matrices outside the well-trained band; the others' are drawn from within it."""


@dataclass
class _Maker:
    """Makes the tensors one by one and notes what it planted."""

    seed: int
    traps: list[PlantedTrap] = field(default_factory=list)
    scales: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def tensor(self, spec: TensorSpec) -> NDArray[np.generic]:
        if spec.name.endswith("_blocks"):
            return self._expert_blocks(spec)
        if spec.name.endswith("_scales"):
            return self.scales.pop(spec.name)
        if matrix_id(spec.name) is not None:
            return self._dense(spec)
        rng = self._rng(spec.name)
        centre = 1.0 if spec.name.endswith("norm.weight") else 0.0
        return (centre + ENTRY_SCALE * rng.standard_normal(spec.shape, dtype=np.float32)).astype(ml_dtypes.bfloat16)

    def _rng(self, key: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(key.encode())])

    def _matrix(self, name: str, rows: int, columns: int) -> tuple[NDArray[np.float32], tuple[int, int] | None]:
        """A trained-looking matrix with what is planted in it, and where if that is one entry."""
        rng = self._rng(name)
        alpha = ALPHAS.get(name) or rng.uniform(*WELL_TRAINED)
        matrix = planting.trained_like(rng, rows, columns, alpha, ENTRY_SCALE)
        return matrix, planting.plant(rng, matrix, *PLANTED[name]) if name in PLANTED else None

    def _note(
        self, name: str, tensor: str, expert: int | None, stored: NDArray[np.float32], place: tuple[int, int] | None
    ) -> None:
        if name in PLANTED:
            self.traps.append(planting.describe(name, tensor, expert, PLANTED[name][0], stored, place))

    def _dense(self, spec: TensorSpec) -> NDArray[np.generic]:
        name = matrix_id(spec.name)
        assert name is not None  # noqa: S101 - the caller asked already
        matrix, place = self._matrix(name, *spec.shape)
        stored = matrix.astype(ml_dtypes.bfloat16)
        self._note(name, spec.name, None, stored.astype(np.float32), place)
        return stored

    def _expert_blocks(self, spec: TensorSpec) -> NDArray[np.generic]:
        """Every expert of one projection, quantised; its scales are kept until their own tensor is asked for."""
        experts, rows, groups, _ = spec.shape
        blocks = np.empty(spec.shape, dtype=np.uint8)
        scales = np.empty(spec.shape[:-1], dtype=np.uint8)
        for expert in range(experts):
            name = matrix_id(spec.name, expert)
            assert name is not None  # noqa: S101 - blocks always hold experts
            matrix, place = self._matrix(name, rows, groups * mxfp4.BLOCK)
            blocks[expert], scales[expert] = mxfp4.quantise(matrix)
            self._note(name, spec.name, expert, mxfp4.dequantise(blocks[expert], scales[expert]), place)
        self.scales[spec.name.replace("_blocks", "_scales")] = scales
        return blocks


def write_demo_checkpoint(folder: Path, seed: int = 0) -> DemoManifest:
    """Write the demo checkpoint: 80 matrices in the exact layout of GPT-OSS, about 8 MB.

    Attention, router and embeddings are BF16, experts MXFP4, cut into shards with an index and a config.json; the
    answer sheet is written beside them. Equal seeds give equal bytes.

    Args:
        folder: a new or empty folder; made where it does not exist.
        seed: of all draws.

    Returns:
        What was planted, as on disk.

    Raises:
        OutputError: the folder is not empty, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError("the folder is not empty", file=str(folder), remedy="Name a new folder for the demo")
        return _write(folder, seed)
    except OSError as error:
        raise OutputError(
            f"the demo checkpoint could not be written: {error.strerror or error}",
            file=str(folder),
            remedy="Choose a folder on a disk with 10 MB free",
        ) from error


def _write(folder: Path, seed: int) -> DemoManifest:
    maker = _Maker(seed)
    shards = cut_shards(tensor_specs(DEMO_SHAPE), DEMO_SHARD_BYTES)
    for number, shard in enumerate(shards):
        save_file({spec.name: maker.tensor(spec) for spec in shard}, folder / shard_name(number, len(shards)))
    for name, document in (
        ("model.safetensors.index.json", index_document(shards)),
        ("config.json", config_document(DEMO_SHAPE)),
    ):
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    manifest = DemoManifest(seed, tuple(maker.traps))
    manifest.write(folder)
    return manifest
