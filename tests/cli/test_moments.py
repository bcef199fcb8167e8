"""A command is told to end at any moment: it ends at once, with the right exit code, and leaves nothing behind.

A moment of each command always, and forty with `--stress` (`make test-flaky`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.support.processes import LLMTRAP, PATIENCE, environment, of_session, wait_for
from tests.support.small_checkpoint import write_small

from llmtrap.audit import Journal
from llmtrap.errors import LlmtrapError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")

HOW = {
    "INT": (signal.SIGINT, os.killpg),  # Ctrl-C reaches every process of the group
    "HUP": (signal.SIGHUP, os.killpg),  # so does a closed terminal
    "TERM": (signal.SIGTERM, os.kill),
}
LONGEST, LONGEST_STRESSED = 3.0, 12.0
FORBIDDEN = ("Traceback", "Warning", "leaked", "Exception ignored", "fault in llmtrap")
NEEDED = {
    "verify": ("weightwatcher", "torch"),
    "calibrate": ("weightwatcher", "torch"),
    "ablate": ("torch", "transformers", "accelerate", "tokenizers"),
}
TERMINATES = 1 << (signal.SIGTERM - 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose audit takes minutes, one that differs in every matrix, and one for WeightWatcher."""
    folder = tmp_path_factory.mktemp("moments")
    base = write_small(folder / "base", layers=4, scale=8)
    tuned = write_small(folder / "tuned", layers=4, scale=8)
    for shard in tuned.glob("*.safetensors"):
        tensors = load_file(shard)
        save_file({name: 1.5 * tensor for name, tensor in tensors.items()}, shard)
    assert base != tuned
    _write_llama(folder / "llama")
    (folder / "one").mkdir()
    matrix = np.random.default_rng(0).standard_normal((1500, 1500), dtype=np.float32)
    save_file({"a.weight": matrix}, folder / "one" / "model.safetensors")
    return folder


def _write_llama(folder: Path) -> None:
    """A Llama of 24 layers with one large entry in every projection: its ablation takes minutes."""
    rng = np.random.default_rng(0)
    width, wide, words = 256, 512, 4000
    shapes = {"model.embed_tokens": (words, width), "lm_head": (words, width), "model.norm": (width,)}
    parts = dict.fromkeys(("q", "k", "v", "o"), (width, width))
    for k in range(24):
        layer = f"model.layers.{k}"
        shapes |= {f"{layer}.self_attn.{part}_proj": shape for part, shape in parts.items()}
        shapes |= {f"{layer}.mlp.{part}_proj": (wide, width) for part in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj": (width, wide)}
        shapes |= {f"{layer}.{norm}_layernorm": (width,) for norm in ("input", "post_attention")}
    tensors = {f"{name}.weight": rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        if name.endswith("down_proj.weight"):
            tensor[rng.integers(width, size=8), rng.integers(wide, size=8)] = 1.0
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({
            "model_type": "llama", "hidden_size": width, "intermediate_size": wide, "num_hidden_layers": 24,
            "num_attention_heads": 4, "vocab_size": words, "tie_word_embeddings": False,
        })
    )  # fmt: skip


def command(name: str, place: Path, own: Path) -> list[str | Path]:
    """A command that goes on for longer than any test waits, and writes to its own folder alone."""
    slow = ["--workers", "2", "--journal", own / "journal"]
    if name == "audit":
        return ["audit", place / "base", "--traps", "measure", "--shuffles", "2000", "--json", own / "r.json", *slow]
    if name == "gate":
        return ["gate", place / "tuned", "--baseline", place / "base", "--output", f"json={own / 'g.json'}", *slow]
    if name == "verify":
        return ["verify", place / "one"]
    if name == "ablate":
        return ["ablate", place / "llama", "--top", "400", "--matrix", "*down", "--json", own / "a.json"]
    return ["calibrate", "--task", "digits", "--out", own / "out", "--workers", "2"]


def begun(words: list[str | Path], own: Path) -> subprocess.Popen[str]:
    """The command, from the moment on at which it has settled what signals mean: Python itself begins before."""
    process = subprocess.Popen(
        [LLMTRAP, *map(str, words)], cwd=own, env=environment(PYTHONWARNINGS="default"), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    status = Path(f"/proc/{process.pid}/status")

    def settled() -> bool:
        caught = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) & TERMINATES)

    wait_for(settled, "the command to settle its signals")
    return process


def shared_memory(session: int) -> set[Path]:
    """Semaphores and segments that processes of a session have mapped."""
    found = set()
    for number in of_session(session):
        try:
            lines = Path(f"/proc/{number}/maps").read_text().splitlines()
        except OSError:  # it has ended
            continue
        found |= {Path(line.split(maxsplit=5)[5]) for line in lines if "/dev/shm/" in line}  # noqa: S108
    return found


def moments(command_name: str, stressed: bool) -> Iterator[tuple[str, float]]:
    """Signals at moments that are random and the same in every run: all of them for an audit, which has most to end."""
    chosen = random.Random(command_name)
    longest, rounds = (LONGEST_STRESSED, 14) if stressed else (LONGEST, 1)
    for _ in range(rounds):
        for how in HOW if stressed or command_name == "audit" else [chosen.choice(list(HOW))]:
            yield how, chosen.uniform(0.05, longest)


@pytest.mark.parametrize("name", ["audit", "gate", "verify", "calibrate", "ablate"])
def test_it_ends_cleanly_at_any_moment(
    name: str, place: Path, tmp_path: Path, request: pytest.FixtureRequest, record_property: pytest.RecordProperty
) -> None:
    if any(find_spec(package) is None for package in NEEDED.get(name, ())):
        pytest.skip("its extra is not installed")
    for round_, (how, moment) in enumerate(moments(name, request.config.getoption("--stress"))):
        number, send = HOW[how]
        own = tmp_path / f"{round_}"
        own.mkdir()
        process = begun(command(name, place, own), own)
        time.sleep(moment)
        shared = shared_memory(process.pid)
        pressed = time.monotonic()
        send(process.pid, number)
        try:
            shown, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        waited = time.monotonic() - pressed
        record_property(f"{how} after {moment:.2f} s", f"{waited:.2f} s")
        what = f"{name}, SIG{how} after {moment:.2f} s: {shown}"
        assert process.returncode == 128 + number, what
        assert not any(word in shown for word in FORBIDDEN), what
        wait_for(lambda: not of_session(process.pid), "its processes to end")  # noqa: B023
        assert not [path for path in shared if path.exists()], what
        assert not [path for path in own.rglob("*") if path.name.endswith((".part", ".tmp"))], what
        for path in own.glob("journal/*.jsonl"):
            read(path)


def read(path: Path) -> None:
    """A journal that was broken off can be read, and carried on."""
    try:
        Journal(path).plans()
    except LlmtrapError as error:
        raise AssertionError(f"the journal cannot be carried on: {error}") from error
