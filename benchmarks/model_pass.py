"""One pass of a language model layer by layer: time, processor seconds and memory above the libraries.

python -m benchmarks.model_pass DIR [--tokens 256] [--device cpu]
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import torch

from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import open_checkpoint

EVERY = 0.02  # seconds between two looks at the memory


def anonymous_bytes() -> int:
    """Resident memory of this process that is no file's (RssAnon)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) * 1024


class Peak:
    """The most anonymous memory while the block runs, in bytes."""

    def __init__(self) -> None:
        self.bytes = anonymous_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self.bytes = max(self.bytes, anonymous_bytes())


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the pass, say what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_pass", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    model = StreamedModel(open_checkpoint(str(options.folder)), options.device)
    before = anonymous_bytes()
    tokens = torch.randint(model.vocabulary, (1, options.tokens), generator=torch.Generator().manual_seed(0))
    began, busy = time.monotonic(), time.process_time()
    with Peak() as peak, model.run(tokens) as outcome:
        layers = time.monotonic() - began, time.process_time() - busy
        finite = all(bool(torch.isfinite(p.logs).all()) for p in outcome.predictions((), 0))
    took = time.monotonic() - began, time.process_time() - busy
    where = f"{torch.get_num_threads()} threads, {options.device}"
    print(f"{options.tokens} tokens through {len(model.gates)} layers, {where}")
    print(f"layers {layers[0]:.0f} s, {layers[1]:.0f} processor s; with the head {took[0]:.0f} s, {took[1]:.0f}")
    print(f"RssAnon {peak.bytes / 1e9:.2f} GB at most, {before / 1e9:.2f} GB before; all predictions finite: {finite}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
