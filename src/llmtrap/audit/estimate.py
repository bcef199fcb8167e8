"""How long a run will take here: the plan's work at this machine's own pace, which a fifth of a second tells."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
from threadpoolctl import threadpool_limits

# What is added to the matrices' own work, in seconds of the machine that the plan's rates are of: starting workers,
# the tensors beside the matrices, judging and writing; and how much dearer the shuffles of some matrices make the sum
# (docs/scaling.md has what was measured).
_BESIDE = 2.0
_SHUFFLES = 1.15

_SIDE = 512
# Seconds that one round of the self-test takes on that machine, otherwise idle.
_ROUND = 0.016
_TEST_SECONDS = 0.2


def expected_seconds(core_seconds: float, workers: int) -> float:
    """Seconds until the reports are there.

    Args:
        core_seconds: the work of the matrices by the plan.
        workers: how many processes share it.
    """
    return slowness() * (_BESIDE + _SHUFFLES * core_seconds / workers)


@cache
def slowness() -> float:
    """How many times as long as the machine of the plan's rates this one takes, as busy as it is now.

    A Gram matrix and its eigenvalues, by the clock and with one BLAS thread as workers have, for a fifth of a second.
    """
    block = np.random.default_rng(0).standard_normal((2 * _SIDE, _SIDE), dtype=np.float32)
    with threadpool_limits(limits=1):
        np.linalg.eigvalsh(block.T @ block)
        begun, rounds = time.perf_counter(), 0
        while rounds == 0 or time.perf_counter() - begun < _TEST_SECONDS:
            np.linalg.eigvalsh(block.T @ block)
            rounds += 1
    return (time.perf_counter() - begun) / rounds / _ROUND
