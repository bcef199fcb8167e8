"""Which engine runs the work. Adding one is adding a file and a line to `choose_executor`."""

from __future__ import annotations

from dataclasses import replace

from llmtrap.audit.executors.base import Executor
from llmtrap.audit.executors.batches import MOST_TOGETHER
from llmtrap.audit.executors.local import LocalExecutor
from llmtrap.audit.executors.ray import RayExecutor
from llmtrap.audit.executors.serial import SerialExecutor
from llmtrap.audit.executors.worker import WorkerSpec
from llmtrap.audit.settings import RunOptions
from llmtrap.spectra.backends import cuda_device_count
from llmtrap.systems.process import HAS_WORKERS


def choose_executor(spec: WorkerSpec, options: RunOptions) -> Executor:
    """The executor for `--engine`, `--workers` and `--device`."""
    devices = _devices(spec, options.workers)
    # On the CPU, whatever the library, a worker has enough to do with one matrix, and its memory is bounded by it.
    # Without α there is no spectrum whose eigenvalues could be computed together.
    most = MOST_TOGETHER if devices[0].startswith("cuda") and spec.analysis.alpha else 1
    if options.engine == "ray":
        return RayExecutor(replace(spec, device=devices[0]), options.workers, most)
    if len(devices) == 1 and not (options.isolated and HAS_WORKERS):
        return SerialExecutor(replace(spec, device=devices[0]), most)
    return LocalExecutor(spec, devices, most, options.stall_timeout)


def _devices(spec: WorkerSpec, workers: int) -> list[str]:
    """A device for each worker: `cuda` means every CUDA device there is, one worker each."""
    if spec.device == "cuda" or (spec.device == "auto" and spec.backend != "numpy"):
        count = cuda_device_count()
        if count > 1:
            return [f"cuda:{number}" for number in range(count)]
        if count == 1 or spec.device == "cuda":
            return ["cuda:0"]
    return [spec.device if spec.device != "auto" else "cpu"] * workers
