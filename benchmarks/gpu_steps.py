"""The steps of one matrix on a CUDA device, each waited for: `python -m benchmarks.gpu` prints them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from llmtrap.audit.measure import StoredReader
from llmtrap.audit.timing import Stages
from llmtrap.checkpoint import Source, WeightMatrix, open_checkpoint
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import Backend, select_backend
from llmtrap.spectra.matrix_data import MatrixData
from llmtrap.spectra.shuffle import generator_for
from llmtrap.spectra.traps import TOP_COUNT

Result = TypeVar("Result")
STEPS = ("read", "send", "decode", "sums", "gram", "eigenvalues", "count", "draw", "gram of shuffle", "top of shuffle")


@dataclass(frozen=True)
class Step:
    """Milliseconds of one step of one matrix, the median of the rounds, and its share of one shuffle and α."""

    library: str
    matrix: str
    step: str
    milliseconds: float
    share: float


def measure_steps(folder: Path, libraries: Sequence[str], rounds: int) -> Iterator[Step]:
    """Every step of an expert, a projection and an embedding, in each library."""
    checkpoint = open_checkpoint(str(folder))
    for library in libraries:
        backend = select_backend(library, "cuda:0")
        for label, matrix in one_of_each(checkpoint.matrices):
            turns = [time_once(matrix, checkpoint.source, backend, waiter(library)) for _ in range(rounds + 1)][1:]
            medians = {step: statistics.median(turn[step] for turn in turns) for step in STEPS}
            total = sum(medians.values())
            for step in STEPS:
                yield Step(library, label, step, 1e3 * medians[step], medians[step] / total)
    checkpoint.source.close()


def one_of_each(matrices: Sequence[WeightMatrix]) -> Iterator[tuple[str, WeightMatrix]]:
    """A fused expert, a projection of the attention, and the embedding."""
    wanted: dict[str, Callable[[WeightMatrix], bool]] = {
        "expert": lambda matrix: matrix.expert is not None and matrix.shape[0] != matrix.shape[1],
        "attention": lambda matrix: matrix.expert is None and matrix.layer is not None and min(matrix.shape) > 2000,
        "embedding": lambda matrix: matrix.layer is None,
    }
    for label, matches in wanted.items():
        matrix = next(matrix for matrix in matrices if matches(matrix))
        yield f"{label} {matrix.shape[0]} × {matrix.shape[1]} {matrix.encoding}", matrix


def waiter(library: str) -> Callable[[], None]:
    """What waits until the device has done all that it was given."""
    module: Any = import_module(library)
    wait: Callable[[], None] = module.cuda.synchronize if library == "torch" else module.cuda.Device(0).synchronize
    return wait


class Clock:
    """Seconds of each step, the device's work included."""

    def __init__(self, wait: Callable[[], None]):
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self._wait = wait

    def timed(self, step: str, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """Do one step and wait for the device."""
        began = time.perf_counter()
        result = work(*arguments, **options)
        self._wait()
        self.seconds[step] += time.perf_counter() - began
        return result


def time_once(matrix: WeightMatrix, source: Source, backend: Backend, wait: Callable[[], None]) -> dict[str, float]:
    """Seconds of each step: from reading to eigenvalues, then one whole shuffle."""
    clock = Clock(wait)
    _time_spectrum(clock, matrix, source, backend)
    _time_shuffle(clock, matrix, source, backend)
    return clock.seconds


def _time_spectrum(clock: Clock, matrix: WeightMatrix, source: Source, backend: Backend) -> None:
    decoder = backend.decoder
    assert decoder is not None  # noqa: S101 - every backend of a device has one
    packed = matrix.packed_blocks(source)
    assert packed is not None  # noqa: S101 - the formats measured here are decoded by the device
    gram = backend.gram(min(matrix.shape), "float32")
    wide, pieces = matrix.shape[0] < matrix.shape[1], []
    while (block := clock.timed("read", next, packed, None)) is not None:
        sent = clock.timed("send", decoder.send, block)
        decoded = clock.timed("decode", decoder.decode, sent)
        clock.timed("sums", decoder.finite, decoded)
        clock.timed("sums", decoder.power_sums, decoded, 0.0, 1.0)
        if wide:
            pieces.append(decoded)
        else:
            gram = clock.timed("gram", backend.add_gram, gram, decoded)
    if wide:
        gram = clock.timed("gram", backend.add_gram, gram, decoder.join(pieces), transposed=True)
    clock.timed("eigenvalues", backend.eigenvalues, gram)


def _time_shuffle(clock: Clock, matrix: WeightMatrix, source: Source, backend: Backend) -> None:
    data = MatrixData(StoredReader(matrix, source, Stages()), AnalysisSettings(traps="measure"), backend)
    bulk = data.bulk(data.moments())
    entries = clock.timed("count", data.entries, bulk)
    columns = min(matrix.shape)
    gram = backend.gram(columns, "float32")
    rows = entries.shuffled_blocks(generator_for(0, matrix.id, 0))
    while (block := clock.timed("draw", next, rows, None)) is not None:
        array = clock.timed("gram of shuffle", backend.from_host, block)
        clock.timed("gram of shuffle", backend.column_sums, array)
        gram = clock.timed("gram of shuffle", backend.add_gram, gram, array)
    clock.timed("top of shuffle", backend.top_eigenpairs, gram, TOP_COUNT, np.ones(columns), vectors=False)
