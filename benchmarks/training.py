"""What following a run costs: how long the training loop is held up, and a trajectory beside a single audit.

    python -m benchmarks.training [--steps 10] [--every 50]

The loop: a Llama of 12 layers of width 512 trains on the CPU; the copy of its weights is timed against N steps of it.
The trajectory: ten checkpoints of 30 matrices of 1024 × 1024, of which two change; its time against that of one audit.
The loop in seconds by the clock, medians; the trajectory in seconds of the processor. The load is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llmtrap.audit import AuditSettings, RunOptions
from llmtrap.checkpoint import open_checkpoint
from llmtrap.integrations.copying import WeightCopy
from llmtrap.trajectory.follow import Follower, FollowOptions

CHECKPOINTS, MATRICES, CHANGING, SIDE = 10, 30, 2, 1024


def held_up(steps: int, every: int) -> dict[str, float]:
    """The copy of the weights against the steps between two checks."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=8,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(0, 8192, (4, 256))
    copy = WeightCopy()
    step_seconds, copy_seconds = [], []
    start = time.perf_counter()
    copy.take(model)
    first = time.perf_counter() - start
    for _ in range(steps):
        start = time.perf_counter()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trained = time.perf_counter()
        copy.take(model)
        step_seconds.append(trained - start)
        copy_seconds.append(time.perf_counter() - trained)
    step, taken = statistics.median(step_seconds), statistics.median(copy_seconds)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "step_seconds": step, "first_copy_seconds": first, "copy_seconds": taken, "every": every,
        "share_of_the_loop": taken / (every * step),
    }  # fmt: skip


def trajectory(folder: Path) -> dict[str, float]:
    """Ten checkpoints, each measured where it changed, against one audit."""
    rng = np.random.default_rng(0)
    tensors = {
        f"model.layers.{k}.mlp.up_proj.weight": 0.02 * rng.standard_normal((SIDE, SIDE), dtype=np.float32)
        for k in range(MATRICES)
    }
    follower = Follower("run", AuditSettings(), FollowOptions(RunOptions(workers=1), alone=float("inf")))
    seconds: list[float] = []
    for k in range(CHECKPOINTS):
        for name in list(tensors)[:CHANGING]:
            tensors[name] = tensors[name] + 1e-3 * rng.standard_normal((SIDE, SIDE), dtype=np.float32)
        place = folder / f"checkpoint-{k}"
        place.mkdir()
        save_file(tensors, place / "model.safetensors")
        start = time.process_time()
        for _ in follower.events(open_checkpoint(str(place)), place.name):
            pass
        seconds.append(time.process_time() - start)
    follower.close()
    audit, whole = seconds[0], sum(seconds)
    changed = (CHECKPOINTS - 1) * CHANGING / MATRICES * audit
    return {
        "one_audit_seconds": audit, "ten_checkpoints_seconds": whole, "changed_seconds": changed,
        "audits_beside_the_changed": (whole - changed) / audit,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--every", type=int, default=50)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "load": os.getloadavg()[0],
            "loop": held_up(chosen.steps, chosen.every),
            "trajectory": trajectory(Path(folder)),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
