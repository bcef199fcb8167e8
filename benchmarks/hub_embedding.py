"""What an embedding of GPT-OSS's size takes over a hub: memory, and how often its bytes are fetched.

    python -m benchmarks.hub_embedding [--rows 201088] [--shuffles 1]

One BF16 matrix, rows × 2880, with a few entries of 90 standard deviations, so that it is shuffled and its traps are
explained: all that is ever measured of a matrix. It is audited by the command with one worker, from disk and from a
hub on loopback.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import ml_dtypes
import numpy as np

from benchmarks.memory import run_measured
from benchmarks.shard_files import ShardFiles
from llmtrap.demo.layout import TensorSpec

COLUMNS = 2880
TENSOR = "model.embed_tokens.weight"
REPO = "org/embedding"
FAR = 90.0


def main() -> None:
    """Measure both ways of reading."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub_embedding", description=__doc__)
    parser.add_argument("--rows", type=int, default=201_088)
    parser.add_argument("--shuffles", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        folder.mkdir()
        write_embedding(folder, chosen.rows)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{chosen.rows} × {COLUMNS} in BF16: {size / 1e6:.0f} MB")
        audit(str(folder), Path(scratch, "local"), chosen.shuffles)
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, folder), daemon=True)
        server.start()
        os.environ["HF_ENDPOINT"] = ours.recv()
        audit(REPO, Path(scratch, "hub"), chosen.shuffles)
        ours.send("sent?")
        print(f"fetched {ours.recv() / size:.4f} times the file")
        server.terminate()


def write_embedding(folder: Path, rows: int) -> None:
    """Gaussian rows with five planted entries."""
    rng = np.random.default_rng(0)
    spec = TensorSpec(TENSOR, "BF16", (rows, COLUMNS))
    step = 4096
    with ShardFiles(folder, [[spec]]) as files:
        for top in range(0, rows, step):
            block = 0.02 * rng.standard_normal((min(step, rows - top), COLUMNS), dtype=np.float32)
            if top % (10 * step) == 0:
                block[7, 11] = 0.02 * FAR
            files.write(TENSOR, top * COLUMNS * 2, block.astype(ml_dtypes.bfloat16))


def audit(target: str, scratch: Path, shuffles: int) -> None:
    """Run the command, and print what it took."""
    scratch.mkdir()
    os.environ["HF_HOME"] = str(scratch / "home")
    command = [
        str(Path(sys.executable).with_name("llmtrap")),
        "audit",
        target,
        "--workers",
        "1",
        "--shuffles",
        str(shuffles),
    ]
    peak = run_measured([*command, "--quiet", "--json", str(scratch / "r.json"), "--journal", str(scratch / "journal")])
    kept = {path.relative_to(scratch) for path in scratch.rglob("*.safetensors")}
    print(
        f"{target}: {peak.seconds:.0f} s; worker's peak {peak.largest / 1e6:.0f} MB, "
        f"all processes {peak.anonymous / 1e6:.0f} MB anonymous; weights on disk: {len(kept)} files"
    )


def serve(connection: Connection, folder: Path) -> None:
    """Serve the folder, and answer what was sent, until this process is ended."""
    from tests.support.hub import LoopbackHub  # noqa: PLC0415 - of the tests, which an installed package has not

    hub = LoopbackHub()
    hub.add(REPO, folder)
    connection.send(hub.endpoint)
    while connection.recv():
        connection.send(hub.bytes_sent)


if __name__ == "__main__":
    main()
