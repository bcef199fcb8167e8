"""Make a checkpoint of GPT-OSS's real size and layout, with traps of known cause in known places.

    python -m benchmarks.make_gptoss --size 20b --out /scratch/gpt-oss-20b-shaped

The 20b has the published names, shapes, dtypes, shards and index: 13,761,264,768 bytes of tensors in three files of the
published lengths. Its weights are drawn (see `bank`): no language model. `planted_traps.json` is the answer sheet.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks.planted import EntryPlace, Plan, plan_traps
from benchmarks.sample_weights import ALPHAS, Bf16Base, Moves, Mxfp4Base, base_matrix, floats
from benchmarks.shard_files import ShardFiles
from llmtrap.demo import mxfp4, planting
from llmtrap.demo.layout import (
    MAX_SHARD_BYTES,
    GptOssShape,
    TensorSpec,
    config_document,
    cut_shards,
    index_document,
    matrix_id,
    tensor_specs,
)
from llmtrap.demo.manifest import DemoManifest, PlantedTrap

SIZES = {"20b": GptOssShape(), "120b": GptOssShape(layers=36, experts=128)}
TABLE_ROWS = 8192  # rows of an embedding written at a time


class Maker:
    """Writes the tensors one after another, each from the bank and at most one matrix in memory."""

    def __init__(self, files: ShardFiles, plan: Plan, seed: int):
        self.files = files
        self.plan = plan
        self.seed = seed
        self.traps: list[PlantedTrap] = []
        self._experts: dict[tuple[int, int], list[Mxfp4Base]] = {}
        self._dense: dict[tuple[int, int], list[Bf16Base]] = {}

    def rng(self, key: str) -> np.random.Generator:
        """The generator of one thing: it does not depend on what was made before."""
        return np.random.default_rng([self.seed, zlib.crc32(key.encode())])

    def write(self, spec: TensorSpec) -> None:
        """Write one tensor; the scales of an expert tensor go with its blocks."""
        name = matrix_id(spec.name)
        if spec.name.endswith("_blocks"):
            self._write_experts(spec)
        elif spec.name in ("model.embed_tokens.weight", "lm_head.weight"):
            self._write_table(spec)
        elif name is not None and min(spec.shape) >= mxfp4.BLOCK:
            self._write_dense(spec, name)
        elif not spec.name.endswith("_scales"):
            centre = 1.0 if spec.name.endswith("norm.weight") else 0.0
            values = centre + 0.03 * self.rng(spec.name).standard_normal(spec.shape, dtype=np.float32)
            self.files.write(spec.name, 0, values.astype(ml_dtypes.bfloat16))

    def _write_experts(self, spec: TensorSpec) -> None:
        experts, rows, groups, width = spec.shape
        columns = groups * mxfp4.BLOCK
        bases = self._experts.setdefault((rows, columns), [])
        if not bases:
            key = f"experts {rows} {columns}"
            bases += [Mxfp4Base(base_matrix(self.rng(f"{key} {alpha}"), rows, columns, alpha)) for alpha in ALPHAS]
        for expert in range(experts):
            name = str(matrix_id(spec.name, expert))
            rng = self.rng(name)
            base = bases[int(rng.integers(len(bases)))]
            blocks, scales = base.variant(Moves.draw(rng, rows, columns))
            if name in self.plan:
                matrix = mxfp4.dequantise(blocks, scales)
                place = planting.plant(rng, matrix, *self.plan[name])
                blocks, scales = mxfp4.quantise(matrix)
                stored = mxfp4.dequantise(blocks, scales)
                self.traps.append(planting.describe(name, spec.name, expert, self.plan[name][0], stored, place))
            self.files.write(spec.name, expert * rows * groups * width, blocks)
            self.files.write(spec.name.replace("_blocks", "_scales"), expert * rows * groups, scales)

    def _write_dense(self, spec: TensorSpec, name: str) -> None:
        rows, columns = spec.shape
        rng = self.rng(name)
        bits = self._dense_base(rng, rows, columns).variant(Moves.draw(rng, rows, columns))
        if name in self.plan:
            matrix = floats(bits)
            place = planting.plant(rng, matrix, *self.plan[name])
            stored = matrix.astype(ml_dtypes.bfloat16)
            exact = stored.astype(np.float32)
            self.traps.append(planting.describe(name, spec.name, None, self.plan[name][0], exact, place))
            self.files.write(spec.name, 0, stored)
        else:
            self.files.write(spec.name, 0, bits)

    def _dense_base(self, rng: np.random.Generator, rows: int, columns: int) -> Bf16Base:
        bases = self._dense.setdefault((rows, columns), [])
        if not bases:
            key = f"dense {rows} {columns}"
            bases += [Bf16Base(base_matrix(self.rng(f"{key} {alpha}"), rows, columns, alpha)) for alpha in ALPHAS]
        return bases[int(rng.integers(len(bases)))]

    def _write_table(self, spec: TensorSpec) -> None:
        """An embedding, by blocks of rows: variants of one base that keep its columns where they are.

        No row is doubled, so the deviation of the whole is that of the base, and a trap can be planted block by block.
        """
        name = str(matrix_id(spec.name))
        total, columns = spec.shape
        height = min(TABLE_ROWS, total)
        rng = self.rng(name)
        base = Bf16Base(base_matrix(rng, height, columns, ALPHAS[1]))
        deviation = float(floats(base.bits).std())
        cause, strength = self.plan[name]
        entry = EntryPlace.draw(rng, total, columns, strength, deviation) if cause == "entry" else None
        sums = np.zeros(3)
        for start in range(0, total, height):
            moves = replace(
                Moves.draw(rng, height, columns, most_doubled=0),
                groups=np.arange(columns // mxfp4.BLOCK),
                column_signs=np.zeros(columns, dtype=np.bool_),
            )
            matrix = floats(base.variant(moves)[: total - start])
            if entry is not None and start <= entry.row < start + len(matrix):
                matrix[entry.row - start, entry.column] = entry.value
            elif cause == "heavy_tail":
                places, values = planting.heavy_entries(rng, matrix.size, total * columns, deviation)
                matrix.reshape(-1)[places] = values
            stored = matrix.astype(ml_dtypes.bfloat16)
            exact: NDArray[np.float32] = stored.astype(np.float32)
            sums += exact.sum(dtype=np.float64), np.square(exact).sum(dtype=np.float64), 0
            sums[2] = max(sums[2], np.abs(exact).max())
            self.files.write(spec.name, start * columns * 2, stored)
        self.traps.append(_table_trap(name, spec, entry, sums))


def _table_trap(name: str, spec: TensorSpec, entry: EntryPlace | None, sums: NDArray[np.float64]) -> PlantedTrap:
    """The trap of a table from the sums over its blocks: of entries, of their squares, and the largest."""
    count = spec.shape[0] * spec.shape[1]
    total, squares, largest = (float(value) for value in sums)
    if entry is None:
        deviation = (squares / count - (total / count) ** 2) ** 0.5
        return PlantedTrap(name, spec.name, None, "heavy_tail", None, None, largest, largest / deviation)
    mean = (total - entry.value) / (count - 1)
    deviation = ((squares - entry.value**2) / (count - 1) - mean**2) ** 0.5
    sigmas = (entry.value - mean) / deviation
    return PlantedTrap(name, spec.name, None, "entry", entry.row, entry.column, entry.value, sigmas)


def make_checkpoint(
    folder: Path, shape: GptOssShape, seed: int = 0, max_shard_bytes: int = MAX_SHARD_BYTES
) -> DemoManifest:
    """Write the checkpoint into a new or empty folder and return what was planted.

    Raises:
        FileExistsError: the folder is not empty.
        OSError: there is no room on the disk, or it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    specs = tensor_specs(shape)
    needed, free = sum(spec.nbytes for spec in specs), shutil.disk_usage(folder).free
    if free < needed + (1 << 28):
        raise OSError(f"{folder} has {free:,} bytes free and the checkpoint needs {needed:,}")
    shards = cut_shards(specs, max_shard_bytes)
    with ShardFiles(folder, shards) as files:
        maker = Maker(files, plan_traps(shape, seed), seed)
        for spec in specs:
            maker.write(spec)
    for name, document in (
        ("model.safetensors.index.json", index_document(shards)),
        ("config.json", config_document(shape)),
    ):
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    manifest = DemoManifest(seed, tuple(maker.traps))
    manifest.write(folder)
    return manifest


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, make the checkpoint, say what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.make_gptoss", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="20b")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--layers", type=int, help="fewer layers than the size has")
    parser.add_argument("--experts", type=int, help="fewer experts")
    parser.add_argument("--vocabulary", type=int, help="fewer rows in the embeddings")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    changes = {key: getattr(options, key) for key in ("layers", "experts", "vocabulary") if getattr(options, key)}
    shape = replace(SIZES[options.size], **changes)
    began = time.monotonic()
    try:
        manifest = make_checkpoint(options.out, shape, options.seed)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.monotonic() - began
    size = sum(spec.nbytes for spec in tensor_specs(shape))
    print(f"{size:,} bytes of tensors, {len(manifest.traps)} traps, {seconds:.0f} s, {size / seconds / 1e6:.0f} MB/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
