"""Crafted pickles and archives: nothing runs, nothing is believed, and time and memory stay within the limits."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.hostile.conftest import Refused

from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.containers.pytorch.opcodes import MAX_OPCODES
from llmtrap.errors import CheckpointError, LlmtrapError, TargetError, UnsafeFileError, UnsupportedError

FILE = "pytorch_model.bin"
LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)


def archive(path: Path, pickled: bytes, members: dict[str, bytes] | None = None, **options: Any) -> None:
    """A zip as torch.save lays it out, around any pickle."""
    with zipfile.ZipFile(path, "w", **options) as zipped:
        zipped.writestr("archive/data.pkl", pickled)
        zipped.writestr("archive/byteorder", "little")
        for name, data in (members or {"archive/data/0": bytes(64)}).items():
            zipped.writestr(name, data)


def storage(key: str = "0", kind: bytes = b"FloatStorage", count: int = 16) -> bytes:
    """Opcodes of a persistent id and of the storage that it stands for."""
    name = struct.pack("<I", len(key)) + key.encode()
    return (
        b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX" + name + b"X\x03\x00\x00\x00cpuJ"
        + struct.pack("<i", count) + b"tQ"
    )  # fmt: skip


def tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], **of_storage: Any) -> bytes:
    """Opcodes of {"a": tensor}."""

    def number(value: int) -> bytes:
        data = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + data

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    arguments = storage(**of_storage) + number(offset) + numbers(shape) + numbers(strides) + b"\x89N"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tRs."


class Runs:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_the_opcodes_made_here_are_those_that_are_read(tmp_path: Path) -> None:
    archive(tmp_path / FILE, tensor(0, (4, 4), (4, 1)))
    (matrix,) = open_checkpoint(str(tmp_path)).matrices
    assert matrix.shape == (4, 4)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch planted",), "posix.system"),
        (eval, ("1",), "builtins.eval"),
        (exec, ("1",), "builtins.exec"),
        (getattr, (int, "real"), "builtins.getattr"),
        (subprocess.Popen, ("true",), "subprocess.Popen"),
        (torch.load, ("x",), "torch.serialization.load"),
        (print, ("was run",), "builtins.print"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_call_is_refused_by_name_and_never_made(
    tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str], function: Any, arguments: Any, name: str,
    zipped: bool, protocol: int,
) -> None:  # fmt: skip
    saved = {"a.weight": torch.ones(2, 2), "b": Runs(function, *arguments)}
    torch.save(saved, tmp_path / FILE, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    error = refused(UnsafeFileError)
    assert f"calls {name}, which no state dict needs: loading this file could run code" in error.problem
    assert capsys.readouterr() == ("", "")
    assert not Path("planted").exists()


@pytest.mark.parametrize(
    ("pickled", "kind", "words"),
    [
        (b"\x80\x02}", CheckpointError, "claims 1 bytes"),
        (b"", CheckpointError, "claims 1 bytes"),
        (b"\x80\x02.", CheckpointError, "does not end in one object"),
        (b"\x80\x02}}.", CheckpointError, "does not end in one object"),
        (b"\x80\x02(.", CheckpointError, "does not end in one object"),
        (b"\x80\x09}.", CheckpointError, "protocol 9"),
        (b"\x80\x02}r\xff\xff\xff\x1f.", TargetError, "holds no tensors"),  # what makes the C unpickler take 8 GB
        (b"\x80\x02h\x05.", CheckpointError, "value 5 was never remembered"),
        (b"\x80\x02}(K\x01s.", CheckpointError, "a mark where a value should be"),
        (b"\x80\x02K\x01K\x02K\x03s.", CheckpointError, "int where dict should be"),
        (b"\x80\x02t.", CheckpointError, "no mark"),
        (b"\x80\x02}(K\x01u.", CheckpointError, "a key without its value"),
        (b"\x80\x02}]K\x01s.", UnsupportedError, "a dictionary with a list for a key"),
        (b"\x80\x02X\xff\xff\xff\xff.", CheckpointError, "claims 4294967295 bytes"),
        (b"\x80\x02\x8e" + b"\xff" * 8 + b".", CheckpointError, "claims 18446744073709551615 bytes"),
        (b"\x80\x02I1\n.", UnsupportedError, "the opcode INT, which no state dict needs"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", UnsupportedError, "the opcode LONG4"),
        (b"\x80\x02\x82\x01.", UnsupportedError, "the opcode EXT1"),
        (b"\x80\x02ca\nb\n(i.", UnsupportedError, "the opcode INST"),
        (b"\x80\x02c" + b"a" * 300 + b"\nb\n.", CheckpointError, "a name of over 256 bytes"),
        (b"\x80\x02K\x01)R.", CheckpointError, "a call of what is no name"),
        (b"\x80\x02K\x01Q.", CheckpointError, "a persistent id that is no storage"),
        (storage(count=-1) + b".", CheckpointError, "a persistent id that is no storage"),
        (tensor(0, (4, 5), (5, 1)), CheckpointError, "leads out of its storage"),
        (tensor(1, (4, 4), (4, 1)), CheckpointError, "leads out of its storage"),
        (tensor(-1, (4, 4), (4, 1)), CheckpointError, "no counts"),
        (tensor(0, (4, 4), (4, -1)), CheckpointError, "no counts"),
        (tensor(0, (1 << 61, 1 << 61), (1, 1)), CheckpointError, "leads out of its storage"),
        (tensor(0, (4,), (4, 1)), CheckpointError, "1 dimensions with 2 strides"),
        (tensor(0, (1,) * 33, (1,) * 33), CheckpointError, "33 dimensions"),
        (tensor(0, (4, 4), (4, 1), count=17), CheckpointError, "claims 17 elements, and the file has 64 bytes"),
        (tensor(0, (4, 4), (4, 1), key="1"), CheckpointError, "its storage is not in the file"),
        (tensor(0, (4, 4), (4, 1), kind=b"FileStorage"), UnsupportedError, "numbers kept as torch.FileStorage"),
        (tensor(0, (4, 4), (4, 1), kind=b"DoubleStorage"), CheckpointError, "claims 16 elements"),
    ],
)  # fmt: skip
def test_a_pickle_that_makes_no_sense_is_refused(
    tmp_path: Path, refused: Refused, pickled: bytes, kind: type[LlmtrapError], words: str
) -> None:
    archive(tmp_path / FILE, pickled)
    assert words in refused(kind).message


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def shared_lists(levels: int) -> bytes:
    """Lists of twice the list below: as many leaves as 2 to the number of levels."""
    text = b"\x80\x02}X\x01\x00\x00\x00a]q\x00"
    for k in range(levels):
        text += b"]q" + bytes([k + 1]) + b"(h" + bytes([k]) + b"h" + bytes([k]) + b"e"
    return text + b"s."


def shared_tuples_as_a_key(levels: int) -> bytes:
    text = b"\x80\x02})q\x00"
    for k in range(levels):
        text += b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1])
    return text + b"K\x01s."


def endless() -> bytes:
    return b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."


BOMBS = {
    "nested": nested(100_000),
    "shared lists": shared_lists(200),
    "shared tuples as a key": shared_tuples_as_a_key(200),
    "a dictionary in itself": endless(),
    "millions of dictionaries": b"\x80\x02(" + b"}" * 20_000_000 + b"t.",
    "millions of remembered values": b"\x80\x02}" + b"".join(b"r" + struct.pack("<I", k) for k in range(2_000_000)),
    "millions of numbers": b"\x80\x02](" + b"M\xff\xff" * 10_000_000 + b"e.",
    "millions of marks": b"\x80\x02" + b"(" * 30_000_000,
    "long text": b"\x80\x02](" + (b"X" + struct.pack("<I", 1 << 20) + b"\xf0" * (1 << 20)) * 60 + b"e.",
}  # fmt: skip

LONG_BOMBS = {"millions of dictionaries", "millions of remembered values", "millions of numbers"}


def test_bombs_go_off_within_the_limits(tmp_path: Path, thorough: bool) -> None:
    """All of them in one process, whose memory at its highest is that of the worst."""
    bombs = [bomb for name, bomb in BOMBS.items() if thorough or name not in LONG_BOMBS]
    for number, bomb in enumerate(bombs):
        archive(tmp_path / f"{number}.bin", bomb)
    program = (
        "import resource, sys\n"
        "from llmtrap.checkpoint import open_checkpoint\n"
        "from llmtrap.errors import LlmtrapError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        open_checkpoint(path)\n    except LlmtrapError as error:\n        print(error.message)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    paths = [str(tmp_path / f"{number}.bin") for number in range(len(bombs))]
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, timeout=300, check=True
    )
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - started
    *messages, kilobytes = done.stdout.splitlines()
    assert [message.partition(":")[0] for message in messages] == [f"{number}.bin" for number in range(len(bombs))]
    assert int(kilobytes) < 400_000
    assert seconds < 10 * len(bombs)


def test_the_number_of_opcodes_leaves_room_for_the_largest_real_file(tmp_path: Path) -> None:
    """A shard of 10,000 tensors takes well under a quarter of what is allowed."""
    state = {f"model.layers.{k}.mlp.experts.{k % 64}.up_proj.weight": torch.ones(2, 2) for k in range(1000)}
    torch.save(state, tmp_path / FILE)
    with zipfile.ZipFile(tmp_path / FILE) as zipped:
        (name,) = (name for name in zipped.namelist() if name.endswith("data.pkl"))
        opcodes = sum(1 for _ in pickletools.genops(zipped.read(name)))
    assert 40 * opcodes < 4 * MAX_OPCODES
    assert len(open_checkpoint(str(tmp_path)).matrices) == 1000


def test_a_deflated_archive_is_not_unpacked(tmp_path: Path, refused: Refused) -> None:
    archive(tmp_path / FILE, b"\x80\x02}." * 1000, compression=zipfile.ZIP_DEFLATED)
    assert "byteorder is compressed" in refused(UnsupportedError).problem
    archive(tmp_path / FILE, tensor(0, (4, 4), (4, 1)), {"archive/data/0": bytes(64)})
    with zipfile.ZipFile(tmp_path / FILE, "w") as zipped:
        zipped.writestr("archive/data.pkl", tensor(0, (4, 4), (4, 1)))
        zipped.writestr("archive/data/0", bytes(64), compress_type=zipfile.ZIP_DEFLATED)
    assert "data/0 is compressed" in refused(UnsupportedError).problem


def edited(path: Path, old: bytes, new: bytes, count: int = 1) -> None:
    data = path.read_bytes()
    assert data.count(old) >= count, "the name that is edited is there"
    path.write_bytes(data.replace(old, new, count))


def test_an_archive_that_two_readers_read_differently_is_refused(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / FILE
    good = tensor(0, (4, 4), (4, 1))
    archive(path, good)
    edited(path, b"archive/data/0", b"archive/data/1")  # the entry's own name, not the directory's
    assert "has another name in the directory" in refused(UnsafeFileError).problem
    archive(path, good, {"archive/data/0": bytes(64), "archive/data/1": bytes(64)})
    edited(path, b"archive/data/1", b"archive/data/0", 2)
    assert "two entries of the archive have one name" in refused(UnsafeFileError).problem
    archive(path, good)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    struct.pack_into("<2I", data, place + 20, 4096, 4096)  # the last entry claims more than is before the directory
    path.write_bytes(data)
    assert "overlaps another, or the directory" in refused(UnsafeFileError).problem
    archive(path, good)
    path.write_bytes(path.read_bytes() + b"trailing")
    assert "no directory at its end" in refused(CheckpointError).problem
    path.write_bytes(path.read_bytes()[: len(good)])
    assert "cut short" in refused(CheckpointError).message


def test_several_pickles_or_none_in_an_archive(tmp_path: Path, refused: Refused) -> None:
    with zipfile.ZipFile(tmp_path / FILE, "w") as zipped:
        for root in ("a", "b"):
            zipped.writestr(f"{root}/data.pkl", b"\x80\x02}.")
    assert "without data.pkl" in refused(UnsupportedError).problem
    with zipfile.ZipFile(tmp_path / FILE, "w") as zipped:
        zipped.writestr("arr_0.npy", b"")
    assert "NumPy archive" in refused(UnsupportedError).problem
    archive(tmp_path / FILE, tensor(0, (4, 4), (4, 1)))
    edited(tmp_path / FILE, b"little", b"bigend")
    assert "big-endian" in refused(UnsupportedError).problem


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_is_refused(tmp_path: Path, refused: Refused, zipped: bool, cut: float) -> None:
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.ones(64, 64)}, buffer, _use_new_zipfile_serialization=zipped)
    data = buffer.getvalue()
    (tmp_path / FILE).write_bytes(data[: int(cut * len(data))])
    refused(CheckpointError)


def test_a_legacy_storage_that_lies_about_its_length_is_refused(tmp_path: Path, refused: Refused) -> None:
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.ones(8, 8)}, buffer, _use_new_zipfile_serialization=False)
    data = bytearray(buffer.getvalue())
    assert data.startswith(LEGACY_MAGIC)
    place = len(data) - 8 - 4 * 64
    assert int.from_bytes(data[place : place + 8], "little") == 64
    for count in (65, 1 << 62, 0):
        data[place : place + 8] = count.to_bytes(8, "little")
        (tmp_path / FILE).write_bytes(data)
        assert f"claims {count} elements" in refused(CheckpointError).problem


def test_names_are_shown_without_control_characters(tmp_path: Path, refused: Refused) -> None:
    torch.save({"\x1b[2J\u202ea": torch.ones(1 << 10).as_strided((2, 2), (1, 2))}, tmp_path / FILE)
    (matrix,) = open_checkpoint(str(tmp_path)).matrices
    assert matrix.id.isprintable()
    torch.save({"\ud800": torch.ones(2, 2)}, tmp_path / FILE)
    assert "no valid Unicode" in refused(CheckpointError).problem
