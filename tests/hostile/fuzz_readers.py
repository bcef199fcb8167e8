"""Coverage-guided fuzzing of what reads a stranger's files first: headers, the index and the configuration.

    python tests/hostile/fuzz_readers.py header -runs=400000 -seed=1 -max_len=4096
    python tests/hostile/fuzz_readers.py index -runs=300000 -seed=1 -max_len=2048
    python tests/hostile/fuzz_readers.py config -runs=300000 -seed=1 -max_len=2048

Every input must end in a catalogue and its matrices, or in an error of this project with one printable message. Any
other exception, 10 seconds or 500 MB stop the run with the input that caused it. Needs the extra `fuzz`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["llmtrap.checkpoint"]):
    from llmtrap.checkpoint.catalogue import read_catalogue
    from llmtrap.checkpoint.find import find_matrices
    from llmtrap.checkpoint.headers import BITS, read_header
    from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity, lend
    from llmtrap.checkpoint.tensors import Catalogue
    from llmtrap.errors import CheckpointError, LlmtrapError

LIMITS = ("-timeout=10", "-rss_limit_mb=500", "-print_final_stats=1", "-verbosity=0")


@dataclass(frozen=True)
class MemorySource:
    """A checkpoint whose files are bytes in memory."""

    contents: dict[str, bytes]

    @property
    def identity(self) -> SourceIdentity:
        return SourceIdentity("fuzzed", "folder")

    def files(self) -> tuple[FileEntry, ...]:
        return tuple(FileEntry(name, len(self.contents[name])) for name in sorted(self.contents))

    def read(self, span: ByteRange) -> Bytes:
        data = np.frombuffer(self.contents[span.file], dtype=np.uint8)[span.start : span.stop]
        if data.size != span.size:
            raise CheckpointError("the file is shorter than the range", file=span.file)
        return data.copy()

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        return lend(self.read(span))

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        out[:] = self.read(span)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """All of it is here."""

    def close(self) -> None:
        """Nothing is open."""


def shard(header: dict[str, object], data: int) -> bytes:
    """A safetensors file of zeros."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


ATTENTION = "model.layers.0.self_attn.q_proj.weight"
EXPERTS = "model.layers.0.mlp.experts.down_proj"
PLAIN = {ATTENTION: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}
PACKED: dict[str, object] = {
    f"{EXPERTS}_blocks": {"dtype": "U8", "shape": [2, 32, 1, 16], "data_offsets": [0, 1024]},
    f"{EXPERTS}_scales": {"dtype": "U8", "shape": [2, 32, 1], "data_offsets": [1024, 1088]},
}
NAMES = [*PLAIN, *PACKED, f"{EXPERTS}_bias", "lm_head.weight", "model.a.weight_scale_inv", ""]
CONFIG = {"model_type": "gpt_oss", "num_hidden_layers": 1, "quantization_config": {"quant_method": "mxfp4"}}
INDEX = {"weight_map": {ATTENTION: "a.safetensors", **dict.fromkeys(PACKED, "b.safetensors")}}


def header(data: bytes) -> None:
    """Bytes as a whole file, or as a header whose length and data fit, or as fields that nearly make sense."""
    provider = atheris.FuzzedDataProvider(data)
    form = provider.ConsumeIntInRange(0, 2)
    if form == 0:
        content = provider.ConsumeBytes(len(data))
    elif form == 1:
        text = provider.ConsumeBytes(len(data))
        content = len(text).to_bytes(8, "little") + text + bytes(64)
    else:
        content = _nearly_sensible(provider)
    source = MemorySource({"model.safetensors": content})
    entries = read_header(source, source.files()[0])
    find_matrices(Catalogue(source.identity, {e.name: e for e in entries}, source.files(), CONFIG, ()))


def _nearly_sensible(provider: atheris.FuzzedDataProvider) -> bytes:
    """Tensors that touch one another, of dtypes that exist, under names that families and encodings look for."""
    tensors: dict[str, object] = {}
    end = 0
    for _ in range(provider.ConsumeIntInRange(0, 6)):
        name = provider.PickValueInList(
            [*PLAIN, *PACKED, f"{EXPERTS}_bias", "lm_head.weight", "a.weight_scale_inv", ""]
        )
        name += provider.ConsumeUnicode(provider.ConsumeIntInRange(0, 6))
        dtype = provider.PickValueInList([*BITS, "F99"])
        shape = provider.ConsumeIntListInRange(provider.ConsumeIntInRange(0, 4), 0, 40)
        size = int(np.prod(shape, dtype=object)) * BITS.get(dtype, 8) // 8
        start = end + provider.PickValueInList([0, 0, 0, 0, 0, 0, 1, -1, 1 << 62])
        end = start + size
        tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return shard(tensors, max(0, min(end, 1 << 20)))


def index(data: bytes) -> None:
    """Bytes as the index of two good shards."""
    text = _splice(data, json.dumps(INDEX).encode())
    files = {"a.safetensors": shard(dict(PLAIN), 64), "b.safetensors": shard(PACKED, 1088)}
    find_matrices(read_catalogue(MemorySource(files | {"model.safetensors.index.json": text})))


def config(data: bytes) -> None:
    """Bytes as the configuration of a good checkpoint."""
    text = _splice(data, json.dumps(CONFIG).encode())
    files = {"model.safetensors": shard(PLAIN | PACKED, 1088 + 64) if data[:1] == b"+" else shard(PACKED, 1088)}
    find_matrices(read_catalogue(MemorySource(files | {"config.json": text})), split_fused=data[-1:] == b"+")


def _splice(data: bytes, sound: bytes) -> bytes:
    """The bytes alone, or put into a sound document in the place of some of its own."""
    if len(data) < 4 or data[0] < 128:
        return data
    start, length = data[1] * len(sound) // 256, data[2] % 32
    return sound[:start] + data[3:] + sound[start + length :]


TARGETS: dict[str, Callable[[bytes], None]] = {"header": header, "index": index, "config": config}


def checked(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, with what may come of it: a result, or one printable error."""

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except LlmtrapError as error:
            message = error.message
            if not message.isprintable() or len(message) > 4000:
                raise AssertionError(f"this message may harm a terminal: {message[:200]!r}") from error

    return one_input


def main() -> None:
    """Fuzz the target named first, with libFuzzer's options after it."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate((json.dumps(PLAIN), json.dumps(INDEX), json.dumps(CONFIG), "{}", "\x80\x02")):
            Path(corpus, f"seed{number}").write_text(seed, encoding="utf-8")
        atheris.Setup([sys.argv[0], *LIMITS, *options, corpus], checked(TARGETS[name]))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
