"""How long an audit takes by the cost model of the plan: for models that nobody could run here, before they are run.

    python -m benchmarks.predictions

Prints the table of docs/scaling.md. CPU rates are those of `llmtrap.audit.plan`, measured; those of a GPU and of disks
and networks are assumed, and named as such.
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

# Assumed of one data-centre GPU, float32 without tensor cores: half the peak of 60 TFLOP/s for the Gram matrix, and a
# values-only eigensolver whose reduction reads the rest of the matrix once a column, at a tenth of the speed of the
# memory since its steps wait for one another.
GPU_GRAM_PER_SECOND = 3e13
GPU_BYTES_PER_SECOND = 2e11
GPU_EACH = 0.005
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
    """Minutes of one GPU with α, by the assumed rates."""
    total = 0.0
    for (rows, columns), count in model.shapes.items():
        n, m = float(max(rows, columns)), float(min(rows, columns))
        reduction = m * 4 * m * m / 2 / 3 / GPU_BYTES_PER_SECOND
        total += count * (GPU_EACH + 2 * n * m * m / GPU_GRAM_PER_SECOND + reduction)
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
