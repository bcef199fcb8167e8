"""The comparisons: a full audit against what α costs at least and against WeightWatcher, certifying against reading."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks.make_gptoss import make_checkpoint
from benchmarks.memory import PeakMemory
from benchmarks.real_size import audit, floor_of
from benchmarks.sample_weights import ALPHAS, base_matrix
from benchmarks.timing import Ratio, compare
from llmtrap.audit.measure import measure_matrix
from llmtrap.checkpoint import Checkpoint, WeightMatrix, open_checkpoint
from llmtrap.demo.layout import GptOssShape
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import NumpyBackend

Floats = NDArray[np.float32]

EXPERTS = GptOssShape(layers=1, experts=4, vocabulary=16_384)
# One layer of GPT-OSS-20B as it is: two embeddings of 201,088 rows in BF16 and 32 fused experts, 2.8 GB.
ONE_LAYER = GptOssShape(layers=1)
SHAPES = ((2880, 2880), (5760, 2880))
DENSE_MATRICES = 8


@dataclass(frozen=True)
class Subject:
    """One certified matrix as it lies on disk, and its values."""

    name: str
    matrix: WeightMatrix
    checkpoint: Checkpoint
    values: Floats

    def audit(self) -> None:
        """All that an audit measures of it: read, decode, moments, α, certificate."""
        found = measure_matrix(self.matrix, self.checkpoint.source, AnalysisSettings(), NumpyBackend())
        if found.traps is None or found.traps.method != "certified":
            raise RuntimeError(f"{self.name} is not certified, so its audit is no measure of the usual one")


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """Two checkpoints: one layer of GPT-OSS-20B with four experts, and float32 matrices of an expert's size."""
    experts, dense = folder / "gptoss-one-layer", folder / "float32"
    make_checkpoint(experts, EXPERTS)
    dense.mkdir()
    rng = np.random.default_rng(0)
    base = base_matrix(rng, *SHAPES[1], ALPHAS[1])
    tensors = {f"layers.{k}.mlp.up_proj.weight": base[rng.permutation(len(base))] for k in range(DENSE_MATRICES)}
    save_file(tensors, dense / "model.safetensors")
    return experts, dense


def subjects(folder: Path) -> Iterator[Subject]:
    """One expert of each shape, without a trap."""
    checkpoint = open_checkpoint(str(folder))
    certify = AnalysisSettings(alpha=False, traps="certify")
    for shape in SHAPES:
        for matrix in checkpoint.matrices:
            if matrix.expert is None or matrix.shape != shape:
                continue
            traps = measure_matrix(matrix, checkpoint.source, certify, NumpyBackend()).traps
            if traps is not None and traps.method == "certified":
                values = np.concatenate([block.copy() for block in matrix.blocks(checkpoint.source)])
                yield Subject(f"{shape[0]} × {shape[1]} MXFP4", matrix, checkpoint, values)
                break


def against_floor(subject: Subject, rounds: int) -> Ratio:
    """A full audit against the Gram matrix and its eigenvalues in float32: what α costs at least."""

    def floor() -> None:
        gram = subject.values.T @ subject.values
        scipy.linalg.eigvalsh(gram, driver="ev", check_finite=False, overwrite_a=True)

    return compare(f"full audit, {subject.name}", subject.audit, floor, "WᵀW and eigvalsh, float32", rounds)


def against_weightwatcher(subject: Subject, rounds: int) -> Ratio:
    """A full audit against WeightWatcher with its randomised spectrum, on the same matrix as a torch Linear layer."""
    return compare(
        f"full audit, {subject.name}", subject.audit, weightwatcher_on(subject.values), "WeightWatcher", rounds
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def weightwatcher_on(values: Floats) -> Callable[[], None]:
    """WeightWatcher's analysis of one matrix. It prints, warns and plots: nothing of that gets out."""
    with _silence():
        import matplotlib  # noqa: PLC0415 - an extra, as the two below

        matplotlib.use("Agg")
        import torch  # noqa: PLC0415
        import weightwatcher  # noqa: PLC0415
    torch.set_num_threads(1)
    layer = torch.nn.Linear(values.shape[1], values.shape[0], bias=False)
    layer.weight.data = torch.from_numpy(values)
    model = torch.nn.Sequential(layer)

    def analyse() -> None:
        with _silence():
            details = weightwatcher.WeightWatcher(model=model).analyze(randomize=True, mp_fit=True, plot=False)
        if len(details) != 1:
            raise RuntimeError("WeightWatcher left the matrix out")

    return analyse


def certify_against_reading(folder: Path, rounds: int) -> Ratio:
    """`--no-alpha --traps certify` on warm float32 bytes against one pass over them."""
    checkpoint = open_checkpoint(str(folder))
    file = folder / "model.safetensors"
    settings = AnalysisSettings(alpha=False, traps="certify")

    def certify() -> None:
        for matrix in checkpoint.matrices:
            measure_matrix(matrix, checkpoint.source, settings, NumpyBackend())

    def read() -> None:
        with file.open("rb") as source:
            subprocess.run(["cat"], stdin=source, stdout=subprocess.DEVNULL, check=True)

    size = file.stat().st_size
    return compare("certify only, float32", certify, read, "cat file > /dev/null", rounds, f"{size:,} warm bytes")


def command_against_floor(folder: Path, scratch: Path, workers: int, rounds: int) -> Ratio:
    """The whole command on eight certified matrices, start-up and report included, against their floor in processes."""
    checkpoint = open_checkpoint(str(folder))
    names = [matrix.id for matrix in checkpoint.matrices]
    shares = [names[first::workers] for first in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:

        def floor() -> None:
            list(pool.map(floor_of, [str(folder)] * workers, shares))

        return compare(
            f"llmtrap audit, {len(names)} matrices 5760 × 2880 float32, {_workers(workers)}",
            lambda: audit_afresh(folder, scratch, workers),
            floor,
            f"WᵀW and eigvalsh, float32, {_workers(workers)}",
            rounds,
        )


def make_one_layer(folder: Path) -> Path:
    """The checkpoint whose audit's memory is measured, planted traps included."""
    make_checkpoint(folder / "gpt-oss-20b-one-layer", ONE_LAYER)
    return folder / "gpt-oss-20b-one-layer"


def audit_afresh(folder: Path, scratch: Path, workers: int) -> PeakMemory:
    """The command itself on a checkpoint, from nothing to the report, and its peak memory."""
    return audit(folder, scratch / "journal", workers, "--fresh", "--json", str(scratch / "report.json"))


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
