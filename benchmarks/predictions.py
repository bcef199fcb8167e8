"""How long an audit takes by the cost model of the plan: for models that nobody could run here, before they are run.

    python -m benchmarks.predictions

Prints the table of docs/scaling.md. CPU rates are those of `llmtrap.audit.plan`, a GPU's those that `benchmarks.gpu`
measured on an H100; that of a disk is assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.make_gptoss import SIZES
from benchmarks.make_headers import llama_70b
from llmtrap.audit import AuditSettings
from llmtrap.audit.plan import core_seconds
from llmtrap.demo.layout import GptOssShape, tensor_specs

# Of one H100 (benchmarks/results/gpu-2026-11-27T223210Z.json): an expert of 5760 × 2880 in MXFP4 takes 10 ms to be
# read, sent, decoded and summed, its Gram matrix 2.9 ms. Eigenvalues in float64 take 4.5 ms at side 512 and 54 ms at
# side 2880. Through the two goes a part that grows with the side, for the steps of the reduction that wait for one
# another, and one with its cube, for what they read.
GPU_ENTRIES_PER_SECOND = 1.66e9
GPU_GRAM_PER_SECOND = 3.3e13
GPU_SECONDS_A_COLUMN = 8.5e-6
GPU_SECONDS_A_CUBE = 1.24e-12
DISK_BYTES_PER_SECOND = 2e9

Shape = tuple[int, int]


@dataclass(frozen=True)
class Model:
    """A model by its matrices: how many of each shape, and the bytes that hold them."""

    name: str
    shapes: Counter[Shape]
    bytes: int


def gpt_oss(name: str, shape: GptOssShape) -> Model:
    """GPT-OSS at a published size."""
    layers, experts, hidden, middle = shape.layers, shape.experts, shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes = Counter({
        (2 * middle, hidden): layers * experts, (hidden, middle): layers * experts,
        (queries, hidden): layers, (hidden, queries): layers, (keys, hidden): 2 * layers,
        (experts, hidden): layers, (shape.vocabulary, hidden): 2,
    })  # fmt: skip
    return Model(name, shapes, sum(spec.nbytes for spec in tensor_specs(shape)))


def dense() -> Model:
    """Llama-3-70B, from the headers that `benchmarks.make_headers` writes."""
    specs = llama_70b()
    shapes = Counter((spec.shape[0], spec.shape[1]) for spec in specs if len(spec.shape) == 2)
    return Model("Llama-3-70B, BF16", shapes, sum(spec.nbytes for spec in specs))


def trillion() -> Model:
    """A mixture of about 10¹² parameters, as such models are built: 60 layers of 384 experts of 7168 × 2048, in FP8."""
    layers, experts, hidden, middle = 60, 384, 7168, 2048
    shapes = Counter({
        (middle, hidden): 2 * layers * experts, (hidden, middle): layers * experts,
        (16_384, 1_536): layers, (hidden, 1_536): layers, (hidden, 576): layers, (8_192, hidden): 2 * layers,
        (experts, hidden): layers, (160_000, hidden): 2,
    })  # fmt: skip
    return Model("1 T mixture, FP8", shapes, sum(n * m * count for (n, m), count in shapes.items()))


def core_minutes(model: Model) -> tuple[float, float]:
    """Minutes of one core with α, and without."""
    seconds = [
        sum(count * core_seconds(shape, settings) for shape, count in model.shapes.items())
        for settings in (AuditSettings(), AuditSettings(alpha=False))
    ]
    return seconds[0] / 60, seconds[1] / 60


def gpu_minutes(model: Model) -> float:
    """Minutes of one GPU with α, by the measured rates: one matrix after the other, all certified."""
    total = 0.0
    for (rows, columns), count in model.shapes.items():
        n, m = float(max(rows, columns)), float(min(rows, columns))
        solver = GPU_SECONDS_A_COLUMN * m + GPU_SECONDS_A_CUBE * m**3
        total += count * (n * m / GPU_ENTRIES_PER_SECOND + 2 * n * m * m / GPU_GRAM_PER_SECOND + solver)
    return total / 60


def rows() -> Iterator[tuple[str, ...]]:
    """The table."""
    for model in (gpt_oss("gpt-oss-20b", SIZES["20b"]), gpt_oss("gpt-oss-120b", SIZES["120b"]), dense(), trillion()):
        with_alpha, without = core_minutes(model)
        reading, gpu = model.bytes / DISK_BYTES_PER_SECOND / 60, gpu_minutes(model)
        times = (with_alpha / 2, with_alpha / 64, without / 2, gpu, gpu / 8, 0.0)
        columns = [f"{max(minutes, reading):.1f}" for minutes in times]
        yield model.name, f"{sum(model.shapes.values()):,}", f"{model.bytes / 1e9:,.0f}", *columns


def main() -> int:
    """Print the table, in minutes."""
    settings = ("2 cores", "64 cores", "2 cores, no α", "1 GPU", "8 GPUs", "reading alone")
    table = Table("model", "matrices", "GB", *settings, title="minutes")
    for row in rows():
        table.add_row(*row)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
