"""Coverage-guided fuzzing of what reads a stranger's files: of a checkpoint, of a hub, and documents of llmtrap's own.

    python -m tests.hostile.fuzz_readers header -runs=400000 -seed=1 -max_len=4096
    python -m tests.hostile.fuzz_readers report|policy|journal|hub -runs=100000 -seed=1 -max_len=2048
    python -m tests.hostile.fuzz_readers index|config|adapter|pickle|gguf -runs=300000 -seed=1 -max_len=2048

Every input must end in a catalogue and its matrices, or in an error of this project with one printable message. Any
other exception, 10 seconds or 500 MB stop the run with the input that caused it. Needs the extra `fuzz`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(
    include=["llmtrap.checkpoint", "llmtrap.report", "llmtrap.gate", "llmtrap.audit.journal"]
):
    from tests.hostile import fuzz_checkpoints as made
    from tests.hostile import fuzz_containers as containers
    from tests.hostile import fuzz_documents as others
    from tests.hostile.fuzz_checkpoints import MemorySource, shard

    from llmtrap.checkpoint.adapted import adapt
    from llmtrap.checkpoint.adapters import read_adapter
    from llmtrap.checkpoint.catalogue import read_catalogue
    from llmtrap.checkpoint.checkpoint import Checkpoint
    from llmtrap.checkpoint.containers import read_contents
    from llmtrap.checkpoint.containers.safetensors import BITS
    from llmtrap.checkpoint.find import find_matrices
    from llmtrap.checkpoint.tensors import Catalogue
    from llmtrap.errors import LlmtrapError

LIMITS = ("-timeout=10", "-rss_limit_mb=500", "-print_final_stats=1", "-verbosity=0")


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
    entries = read_contents(source, source.files()[0]).tensors
    find_matrices(Catalogue(source.identity, {e.name: e for e in entries}, source.files(), made.CONFIG, ()))


def _nearly_sensible(provider: atheris.FuzzedDataProvider) -> bytes:
    """Tensors that touch one another, of dtypes that exist, under names that families and encodings look for."""
    tensors: dict[str, object] = {}
    end = 0
    for _ in range(provider.ConsumeIntInRange(0, 6)):
        name = provider.PickValueInList(made.NAMES)
        name += provider.ConsumeUnicode(provider.ConsumeIntInRange(0, 6))
        dtype = provider.PickValueInList([*BITS, "F99"])
        shape = provider.ConsumeIntListInRange(provider.ConsumeIntInRange(0, 4), 0, 40)
        size = int(np.prod(shape, dtype=object)) * BITS.get(dtype, 8) // 8
        start = end + provider.PickValueInList([0, 0, 0, 0, 0, 0, 1, -1, 1 << 62])
        end = start + size
        tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return shard(tensors, max(0, min(end, 1 << 20)))


def index(data: bytes) -> None:
    """Bytes, or an index that nearly makes sense, beside two good shards."""

    def sensible(provider: atheris.FuzzedDataProvider) -> object:
        places = {
            provider.PickValueInList(made.NAMES): provider.PickValueInList(made.SHARDS)
            for _ in range(provider.ConsumeIntInRange(0, 5))
        }
        return {"weight_map": places if provider.ConsumeBool() else made.INDEX["weight_map"] | places}

    text = _document(data, made.INDEX, sensible)
    files = {"a.safetensors": shard(dict(made.PLAIN), 64), "b.safetensors": shard(made.PACKED, 1088)}
    find_matrices(read_catalogue(MemorySource(files | {made.INDEX_NAME: text})))


def config(data: bytes) -> None:
    """Bytes, or a configuration that nearly makes sense, of a good checkpoint."""

    def sensible(provider: atheris.FuzzedDataProvider) -> object:
        return {"model_type": provider.PickValueInList(made.FUSING)} | _object(provider, made.CONFIG_KEYS, 3)

    text = _document(data, made.CONFIG, sensible)
    weights = shard(made.FUSED, 192) if len(data) % 2 else shard(made.PACKED, 1088)
    files = {"model.safetensors": weights, "config.json": text}
    for split in (False, True):
        find_matrices(read_catalogue(MemorySource(files)), split_fused=split)


def adapter(data: bytes) -> None:
    """Bytes, or a configuration that nearly makes sense, of an adapter whose factors fit its base."""
    text = _document(data, made.ADAPTER, lambda provider: made.ADAPTER | _object(provider, made.ADAPTER_KEYS, 2))
    source = MemorySource({"adapter_model.safetensors": shard(made.FACTORS, 64), "adapter_config.json": text})
    base = MemorySource({"model.safetensors": shard(dict(made.PLAIN), 64)})
    catalogue = read_catalogue(base)
    found = find_matrices(catalogue)
    adapted = adapt(
        Checkpoint(base, catalogue, found.matrices, found.skipped, found.family), read_adapter(source), source
    )
    for matrix in adapted.matrices:
        matrix.read(adapted.source)


def _document(
    data: bytes, sound: Mapping[str, object], sensible: Callable[[atheris.FuzzedDataProvider], object]
) -> bytes:
    """The bytes alone, or put into a sound document in the place of some of its own, or turned into a document."""
    if len(data) < 4 or data[0] < 64:
        return data
    if data[0] < 160:
        text = json.dumps(sound).encode()
        start, length = data[1] * len(text) // 256, data[2] % 32
        return text[:start] + data[3:] + text[start + length :]
    return json.dumps(sensible(atheris.FuzzedDataProvider(data[1:]))).encode()


def _object(provider: atheris.FuzzedDataProvider, keys: list[str], depth: int) -> dict[str, object]:
    """Keys that a reader looks for, with values of any kind."""
    return {
        provider.PickValueInList(keys): _value(provider, keys, depth) for _ in range(provider.ConsumeIntInRange(0, 6))
    }


def _value(provider: atheris.FuzzedDataProvider, keys: list[str], depth: int) -> object:
    kind = provider.ConsumeIntInRange(0, 8 if depth else 5)
    if kind < 2:
        return provider.ConsumeIntInRange(-1, 16)
    if kind == 2:
        return provider.PickValueInList([True, False, None, 1 << 62, 10**400, -1, 0.5, 1e308])
    if kind == 3:
        return provider.PickValueInList(made.WORDS)
    if kind == 4:
        return provider.ConsumeUnicode(provider.ConsumeIntInRange(0, 12))
    if kind == 5:
        return provider.ConsumeFloat()
    if kind == 6:
        return [_value(provider, keys, 0) for _ in range(provider.ConsumeIntInRange(0, 3))]
    return _object(provider, keys, depth - 1)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header,
    "index": index,
    "config": config,
    "adapter": adapter,
    "pickle": containers.pickle,
    "gguf": containers.gguf,
    "report": others.report,
    "policy": others.policy,
    "journal": others.journal,
    "hub": others.hub,
}


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
        for number, seed in enumerate(
            (*map(json.dumps, (made.PLAIN, made.INDEX, made.CONFIG, made.ADAPTER)), "{}", "\x80\x02")
        ):
            Path(corpus, f"seed{number}").write_text(seed, encoding="utf-8")
        atheris.Setup([sys.argv[0], *LIMITS, *options, corpus], checked(TARGETS[name]))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
