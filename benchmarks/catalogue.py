"""What listing a large file of torch.save takes: a fresh process opens a shard of 5 GB, and reads one block of it.

    python -m benchmarks.catalogue

The file is written by torch.save into a sparse one, so it takes no disk. Seconds are from the call to the catalogue,
and to the first block of a matrix that is opened by name, without the interpreter's start and imports; the memory is
the whole process' at its highest.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

MATRICES, SIDE = 10, 16384
_PROGRAM = """
import json, re, sys, time
from pathlib import Path
from llmtrap.checkpoint import LocalSource, open_checkpoint, read_catalogue
def highest():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
began = time.perf_counter()
read_catalogue(LocalSource(sys.argv[1]))
listed = time.perf_counter() - began
listed_memory = highest()
checkpoint = open_checkpoint(sys.argv[1])
next(checkpoint.matrices[-1].blocks(checkpoint.source))
read = time.perf_counter() - began
memory = highest()
print(json.dumps([len(checkpoint.matrices), listed, listed_memory, read, memory]))
"""


@dataclass(frozen=True)
class Listing:
    """What was measured: seconds, and bytes of resident memory."""

    file_bytes: int
    matrices: int
    listed_seconds: float
    listed_memory: int
    block_seconds: float
    block_memory: int

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.file_bytes / 1e9:.1f} GB of torch.save, {self.matrices} matrices: listed in "
            f"{self.listed_seconds * 1000:.0f} ms and {self.listed_memory / 1e6:.0f} MB; opened and a block read after "
            f"{self.block_seconds * 1000:.0f} ms and {self.block_memory / 1e6:.0f} MB"
        )


class _SparseFile(io.RawIOBase):
    """Steps over what is large, which is all zeros here."""

    def __init__(self, path: Path):
        self._file = path.open("wb")

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        if view.nbytes >= 1 << 20:
            self._file.seek(view.nbytes, 1)
        else:
            self._file.write(view)
        return view.nbytes

    def tell(self) -> int:
        return self._file.tell()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def measure_listing(folder: Path) -> Listing:
    """Write the file, and open it in a process of its own."""
    path = folder / "pytorch_model-00001-of-00002.bin"
    # Zeros of NumPy, which are no memory until they are written to.
    zeros = [torch.from_numpy(np.zeros((SIDE, SIDE), np.int16)).view(torch.bfloat16) for _ in range(MATRICES)]
    state = {f"model.layers.{k}.mlp.up_proj.weight": tensor for k, tensor in enumerate(zeros)}
    with _SparseFile(path) as file:
        torch.save(state, file)  # type: ignore[arg-type]
    done = subprocess.run([sys.executable, "-c", _PROGRAM, str(path)], capture_output=True, text=True, check=True)
    return Listing(path.stat().st_size, *json.loads(done.stdout))


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="llmtrap-listing-") as scratch:
        print(measure_listing(Path(scratch)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
