"""Crafted GGUF headers: the attacks that hang or exhaust the common readers, and every lie about counts and places."""

from __future__ import annotations

import resource
import struct
import time
from pathlib import Path

import pytest
from tests.hostile.conftest import Refused

from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import CheckpointError, LlmtrapError, UnsupportedError

FILE = "model.gguf"


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: bytes = b"a", shape: tuple[int, ...] = (32, 4), kind: int = 0, offset: int = 0) -> bytes:
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def gguf(
    *parts: bytes, keys: int = 0, tensors: int = 0, version: int = 3, data: int = 4096, magic: bytes = b"GGUF"
) -> bytes:
    head = magic + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)
    return head + bytes(-len(head) % 32) + bytes(data)


def test_the_header_made_here_is_one_that_is_read(tmp_path: Path) -> None:
    sound = gguf(key(b"general.architecture", 8, text(b"llama")), tensor(), tensor(b"b", offset=512), keys=1, tensors=2)
    (tmp_path / FILE).write_bytes(sound)
    assert [matrix.shape for matrix in open_checkpoint(str(tmp_path)).matrices] == [(4, 32), (4, 32)]


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"GGUF", CheckpointError, "claims 4 bytes"),
        (b"NONE" + bytes(40), CheckpointError, "no GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", CheckpointError, "git lfs pull"),
        (gguf(version=1), UnsupportedError, "GGUF of version 1"),
        (gguf(version=3 << 24), UnsupportedError, "big-endian"),
        (gguf(tensors=1 << 60), CheckpointError, f"claims {1 << 60} tensors"),
        (gguf(keys=1 << 60), CheckpointError, f"and {1 << 60} keys"),
        (gguf(keys=90_000, data=100), CheckpointError, "and 90000 keys"),
        (gguf(struct.pack("<Q", 1 << 60), keys=1), CheckpointError, "a name of 1152921504606846976 bytes"),
        (gguf(key(b"k", 8, struct.pack("<Q", 1 << 60)), keys=1), CheckpointError, "claims 1152921504606846976 bytes"),
        (gguf(key(b"k", 9, array(4, 1 << 40)), keys=1), CheckpointError, "claims 4398046511104 bytes"),
        (gguf(key(b"k", 9, array(8, 1 << 40)), keys=1), CheckpointError, "an array of 1099511627776 values"),
        (gguf(key(b"k", 9, array(9, 1 << 40)), keys=1), CheckpointError, "an array of 1099511627776 values"),
        (gguf(key(b"k", 9, array(8, 2, struct.pack("<Q", 1 << 50) + bytes(8))), keys=1), CheckpointError, "claims"),
        (gguf(key(b"k", 9, array(9, 1) * 5000), keys=1), CheckpointError, "arrays nested too deep"),
        (gguf(key(b"k", 99, b""), keys=1), CheckpointError, "a value of type 99"),
        (gguf(key(b"k", 0, b"\1") * 2, keys=2), CheckpointError, "the key k is there twice"),
        (gguf(key(b"general.alignment", 4, bytes(4)), tensor(), keys=1, tensors=1), CheckpointError, "alignment"),
        (gguf(key(b"general.alignment", 8, text(b"x")), tensor(), keys=1, tensors=1), CheckpointError, "alignment"),
        (gguf(tensor(b"\xff"), tensors=1), CheckpointError, "not valid UTF-8"),
        (gguf(tensor(shape=(1,) * 5), tensors=1), CheckpointError, "5 dimensions"),
        (gguf(tensor(shape=(1 << 40, 1 << 40)), tensors=1), CheckpointError, "a shape"),
        (gguf(tensor(shape=(1 << 62, 4)), tensors=1), CheckpointError, "a shape"),
        (gguf(tensor(shape=(33, 4), kind=2), tensors=1), CheckpointError, r"a shape [4, 33] in blocks of 32"),
        (gguf(tensor(shape=(), kind=2), tensors=1), CheckpointError, "a block type without dimensions"),
        (gguf(tensor(kind=4), tensors=1), UnsupportedError, "the GGUF type Q4_2 is not read"),
        (gguf(tensor(kind=41), tensors=1), UnsupportedError, "the GGUF type Q1_0 is not read"),
        (gguf(tensor(kind=999), tensors=1), UnsupportedError, "the GGUF type number 999 is not read"),
        (gguf(tensor(), tensor(offset=512), tensors=2), CheckpointError, "the name is there twice"),
        (gguf(tensor(), tensor(b"b"), tensors=2), CheckpointError, "its data start at 0 of the data, expected 512"),
        (gguf(tensor(offset=32), tensors=1), CheckpointError, "its data start at 32 of the data, expected 0"),
        (gguf(tensor(shape=(32, 400)), tensors=1), CheckpointError, "its data end at byte"),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(
    tmp_path: Path, refused: Refused, content: bytes, kind: type[LlmtrapError], words: str
) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert words in refused(kind).message


@pytest.mark.parametrize(
    "values",
    [
        array(7, 50_000_000, bytes(50_000_000)),
        array(8, 5_000_000, bytes(40_000_000)),
        array(9, 1_000_000, array(0, 0) * 1_000_000),
    ],
    ids=["booleans", "empty strings", "empty arrays"],
)
def test_long_arrays_are_passed_over(tmp_path: Path, values: bytes) -> None:
    (tmp_path / FILE).write_bytes(gguf(key(b"tokenizer.ggml.tokens", 9, values), tensor(), keys=1, tensors=1))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert len(open_checkpoint(str(tmp_path)).matrices) == 1
    assert time.process_time() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_header_over_the_limit_is_refused(tmp_path: Path, refused: Refused) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + key(b"k", 9, array(0, 100_000_001))
    with (tmp_path / FILE).open("wb") as file:
        file.write(head)
        file.truncate(200_000_000)
    assert "claims 100000001 bytes" in refused(CheckpointError).problem


def test_a_scale_that_is_no_number_is_reported_not_hidden(tmp_path: Path) -> None:
    """Q8_0 with an infinite scale: the numbers are infinite, and an audit says where."""
    block = b"\x00\x7c" + b"\1" * 32
    head = gguf(tensor(b"a.weight", (32, 4), kind=8), tensors=1, data=0)
    (tmp_path / FILE).write_bytes(head + block * 4)
    checkpoint = open_checkpoint(str(tmp_path))
    values = checkpoint.matrices[0].read(checkpoint.source)
    assert values.shape == (4, 32)
    assert (values == float("inf")).all()
