"""A matrix larger than all that may be held is fetched once, and never held: not as stored, not as numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save, save_file
from tests.support.hub import LoopbackHub
from tests.support.processes import environment

from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions
from llmtrap.checkpoint import open_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
MIB = 1 << 20
BUDGET, KEEP = 8 * MIB, 4 * MIB

# The budgets are made small as the matrix is; everything else is what `llmtrap audit` does with one worker.
AUDIT = f"""
import contextlib, json, sys
from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions
from llmtrap.systems.process import peak_rss_bytes
from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.catalogue import read_catalogue
from llmtrap.checkpoint.find import find_matrices
from llmtrap.checkpoint.sources.hub import HubOptions, HubSource

options = HubOptions(budget={BUDGET}, keep={KEEP}, piece={MIB})
with contextlib.closing(HubSource.from_target(sys.argv[1], options=options)) as source:
    catalogue = read_catalogue(source)
    found = find_matrices(catalogue)
    checkpoint = Checkpoint(source, catalogue, found.matrices, found.skipped, found.family)
    run = AuditRun(checkpoint, AuditSettings(shuffles=1), RunOptions(workers=1))
    reports = [event.report.to_json_dict() for event in run.events() if isinstance(event, Finished)]
print(json.dumps([peak_rss_bytes(), reports[0]["matrices"]]))
"""


def audited(target: str) -> tuple[int, list[dict[str, Any]]]:
    """Audit in a process of its own: the most memory it held, and the matrices."""
    command = [sys.executable, "-c", AUDIT, target]
    done = subprocess.run(command, env=environment(), capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    peak, matrices = json.loads(done.stdout)
    return peak, [timeless(matrix) for matrix in matrices]


def timeless(matrix: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in matrix.items() if key != "seconds"}


@pytest.mark.thorough
def test_a_tall_matrix_is_fetched_once_and_never_held(hub: LoopbackHub, tmp_path: Path) -> None:
    # As an embedding is: many times as tall as wide; 146 MiB stored, 293 MiB decoded, and as much again shuffled
    rows, columns = 300_000, 256
    block = np.random.default_rng(0).standard_normal((10_000, columns), dtype=np.float32)
    weight = np.tile((0.03 * block).astype(ml_dtypes.bfloat16), (rows // 10_000, 1))
    weight[200_001, 17] = weight[5, 200] = 8.0
    save_file({"model.embed_tokens.weight": weight}, tmp_path / "model.safetensors")
    hub.add("org/tall", tmp_path)
    hub.add("org/small", {"model.safetensors": save({"w.weight": np.eye(64, dtype=np.float32)})})

    least, _ = audited("org/small")
    before = hub.bytes_sent
    peak, streamed = audited("org/tall")
    fetched = hub.bytes_sent - before
    run = AuditRun(open_checkpoint(str(tmp_path)), AuditSettings(shuffles=1), RunOptions(workers=1))
    (local,) = [event.report.to_json_dict() for event in run.events() if isinstance(event, Finished)]

    assert streamed == [timeless(matrix) for matrix in local["matrices"]]
    causes = [trap["cause"] for trap in streamed[0]["traps"]["found"]]
    assert sorted((cause["row"], cause["column"]) for cause in causes) == [(5, 200), (200_001, 17)]
    assert fetched <= 1.02 * weight.nbytes
    # As for a local file (tests/audit/test_memory.py), and what may be under way.
    assert peak - least < 140 * MIB + BUDGET + KEEP
