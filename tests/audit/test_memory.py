"""Memory is bounded by one matrix's Gram matrix and a few blocks, whatever the size of the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.processes import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
MIB = 1 << 20

AUDIT = """
import json, sys
from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions
from llmtrap.systems.process import peak_rss_bytes
from llmtrap.checkpoint import open_checkpoint

run = AuditRun(open_checkpoint(sys.argv[1]), AuditSettings(traps=sys.argv[2], shuffles=1), RunOptions(workers=1))
(report,) = [event.report for event in run.events() if isinstance(event, Finished)]
print(json.dumps([peak_rss_bytes(), [m.id for m in report.matrices], report.summary.peak_rss_bytes]))
"""


def peak(target: Path, traps: str) -> int:
    """Audit in a process of its own, one matrix at a time: the most memory it held."""
    command = [sys.executable, "-c", AUDIT, str(target), traps]
    done = subprocess.run(command, env=environment(), capture_output=True, check=True, text=True)
    measured, names, reported = json.loads(done.stdout)
    assert names
    # The kernel keeps the peak by batches of pages, so that two readings of it differ a little
    assert abs(reported - measured) < 4 * MIB
    assert isinstance(measured, int)
    return measured


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What a process needs to audit next to nothing: Python, NumPy, SciPy."""
    folder = tmp_path_factory.mktemp("least")
    save_file({"w.weight": np.eye(64, dtype=np.float32)}, folder / "m.safetensors")
    return peak(folder, "measure")


def test_a_tall_matrix_is_never_held_whole(tmp_path: Path, least: int) -> None:
    # As an embedding is: many times as tall as wide; 146 MiB stored, 293 MiB decoded, and as much again shuffled
    rows, columns = 300_000, 256
    block = np.random.default_rng(0).standard_normal((10_000, columns), dtype=np.float32)
    weight = np.tile((0.03 * block).astype(ml_dtypes.bfloat16), (rows // 10_000, 1))
    save_file({"model.embed_tokens.weight": weight}, tmp_path / "model.safetensors")

    assert peak(tmp_path, "measure") - least < 140 * MIB


def test_experts_are_decoded_one_by_one(tmp_path: Path, least: int) -> None:
    # 32 experts of 4 MiB decoded; 134 MiB together
    experts, rows, groups = 32, 2048, 16
    rng = np.random.default_rng(0)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    tensors = {
        f"{name}_blocks": rng.integers(0, 256, (experts, rows, groups, 16), dtype=np.uint8),
        f"{name}_scales": rng.integers(118, 122, (experts, rows, groups), dtype=np.uint8),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    config = {
        "model_type": "gpt_oss", "num_local_experts": experts, "hidden_size": groups * 32, "num_hidden_layers": 1,
        "quantization_config": {"quant_method": "mxfp4"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert peak(tmp_path, "auto") - least < 90 * MIB
