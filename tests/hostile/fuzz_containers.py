"""What the fuzzer gives the readers of torch.save's files and of GGUF: bytes in sound files, or bytes alone."""

from __future__ import annotations

import io
import zipfile
from functools import cache

import numpy as np
from tests.hostile.fuzz_checkpoints import MemorySource

from llmtrap.checkpoint.catalogue import read_catalogue
from llmtrap.checkpoint.find import find_matrices

_LARGEST = 1 << 16  # entries of a matrix that is also decoded


def pickle(data: bytes) -> None:
    """The pickle of an archive, an old file from its beginning, or the archive around a sound pickle."""
    form, data = (data[0] if data else 0), data[1:]
    if form < 64:
        content = _archive(data)
    elif form < 160:
        content = _archive(_spliced(_sound_pickle(), data))
    elif form < 208:
        content = _spliced(_sound_file(zipped=False), data)
    else:
        content = _spliced(_sound_file(zipped=True), data)
    _open("pytorch_model.bin", content)


def gguf(data: bytes) -> None:
    """A header, or a sound one that bytes are put into."""
    form, data = (data[0] if data else 0), data[1:]
    _open("model.gguf", b"GGUF\3\0\0\0" + data if form < 64 else _spliced(_sound_gguf(), data))


def _open(name: str, content: bytes) -> None:
    source = MemorySource({name: content})
    for matrix in find_matrices(read_catalogue(source)).matrices:
        if matrix.size <= _LARGEST:
            matrix.read(source)


def _spliced(sound: bytes, data: bytes) -> bytes:
    """Some of the bytes in the place of the sound file's own."""
    if len(data) < 4:
        return sound
    start = int.from_bytes(data[:2], "little") * len(sound) >> 16
    return sound[:start] + data[3:] + sound[start + (data[2] if data[2] < 64 else len(data) - 3) :]


def _archive(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickled)
        zipped.writestr("archive/byteorder", "little")
        for key in "01":
            zipped.writestr(f"archive/data/{key}", bytes(256))
    return buffer.getvalue()


@cache
def _sound_file(*, zipped: bool) -> bytes:
    import torch  # noqa: PLC0415 - 200 MB, which the other readers' limit of memory need not hold

    base = torch.arange(64, dtype=torch.float32).reshape(8, 8)
    state = {"model.layers.0.mlp.up_proj.weight": base.t(), "a": {"b": [base[2:4], torch.nn.Parameter(base.half())]}}
    buffer = io.BytesIO()
    saved = {"state_dict": state, "optimizer": {"state": {0: base}}, "epoch": 3}
    torch.save(saved, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@cache
def _sound_pickle() -> bytes:
    with zipfile.ZipFile(io.BytesIO(_sound_file(zipped=True))) as zipped:
        return zipped.read(next(name for name in zipped.namelist() if name.endswith("data.pkl")))


@cache
def _sound_gguf() -> bytes:
    def text(value: bytes) -> bytes:
        return len(value).to_bytes(8, "little") + value

    def number(value: int, size: int = 4) -> bytes:
        return value.to_bytes(size, "little")

    keys = [
        text(b"general.architecture") + number(8) + text(b"llama"),
        text(b"llama.attention.head_count") + number(4) + number(2),
        text(b"tokenizer.ggml.tokens") + number(9) + number(8) + number(2, 8) + text(b"a") + text(b"bc"),
    ]
    tensors, offset = [], 0
    for name, kind, size in ((b"token_embd.weight", 0, 512), (b"blk.0.ffn_up.weight", 8, 136), (b"x", 12, 576)):
        shape = (256, 4) if kind == 12 else (32, 4)
        sizes = b"".join(number(length, 8) for length in shape)
        tensors.append(text(name) + number(2) + sizes + number(kind) + number(offset, 8))
        offset += -(-size // 32) * 32
    head = b"GGUF" + number(3) + number(len(tensors), 8) + number(len(keys), 8) + b"".join(keys + tensors)
    data = np.random.default_rng(0).integers(0, 60, offset, dtype=np.uint8)
    return head + bytes(-len(head) % 32) + data.tobytes()
