"""Which engine runs the work. Adding one is adding a file and a line to `choose_executor`."""

from __future__ import annotations

import math
from dataclasses import replace

from llmtrap.audit.executors.base import Executor
from llmtrap.audit.executors.local import LocalExecutor
from llmtrap.audit.executors.ray import RayExecutor
from llmtrap.audit.executors.serial import SerialExecutor
from llmtrap.audit.executors.worker import WorkerSpec
from llmtrap.audit.settings import RunOptions
from llmtrap.spectra.backends import cuda_device_count
from llmtrap.systems.process import HAS_WORKERS

MOST_A_DEVICE = 4
"""Workers that share a device: while one draws a shuffle on the host, the others compute (docs/scaling.md)."""


def choose_executor(spec: WorkerSpec, options: RunOptions) -> Executor:
    """The executor for `--engine`, `--workers` and `--device`."""
    devices = _devices(spec, options.workers)
    if options.engine == "ray":
        return RayExecutor(replace(spec, device=devices[0]), options.workers)
    if len(devices) == 1 and not (options.isolated and HAS_WORKERS):
        return SerialExecutor(replace(spec, device=devices[0]))
    return LocalExecutor(spec, devices, options.stall_timeout)


def _devices(spec: WorkerSpec, workers: int) -> list[str]:
    """A device for each worker: `cuda` means every CUDA device there is, and each has a few workers at the most."""
    devices = [spec.device if spec.device != "auto" else "cpu"]
    if spec.device == "cuda" or (spec.device == "auto" and spec.backend != "numpy"):
        count = cuda_device_count()
        if count > 0 or spec.device == "cuda":
            devices = [f"cuda:{number}" for number in range(max(1, count))]
    if devices == ["cpu"]:
        return devices * workers
    # One after the other, so that a few matrices are spread over all devices.
    return devices * min(MOST_A_DEVICE, math.ceil(workers / len(devices)))
