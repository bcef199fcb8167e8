"""Files of torch.save, read without PyTorch and without unpickling: nothing that they name is ever looked up or run."""

from __future__ import annotations

import re
from typing import Any

from llmtrap.checkpoint.containers.base import DAMAGED, Container, OpenFile
from llmtrap.checkpoint.containers.pytorch import archive, legacy
from llmtrap.checkpoint.containers.pytorch.archive import Member, read_members, stored
from llmtrap.checkpoint.containers.pytorch.legacy import read_legacy
from llmtrap.checkpoint.containers.pytorch.opcodes import MAX_PICKLE, PickleReader
from llmtrap.checkpoint.containers.pytorch.places import StoragePlace, place
from llmtrap.checkpoint.containers.pytorch.state import find_state
from llmtrap.checkpoint.containers.stream import ByteStream
from llmtrap.checkpoint.disguises import disguise
from llmtrap.checkpoint.sources.base import ByteRange, Bytes
from llmtrap.checkpoint.tensors import FileContents, Skipped, TensorEntry
from llmtrap.errors import CheckpointError, LlmtrapError, UnsafeFileError, UnsupportedError

_TORCHSCRIPT = (
    "Save the state dict of the model it was traced or scripted from: torch.save(model.state_dict(), FILE), "
    "best as safetensors"
)
_TEXT_PICKLE = re.compile(rb"c[\w.]{1,200}\n[\w.]{1,200}\n")
_BARE = "It was not run and never is. Load it where you trust it, and save the weights alone, best as safetensors"
_TAR = "Load it with an old PyTorch where you trust it, and save it again"


class PyTorch(Container):
    """Files of torch.save: a zip archive since PyTorch 1.6, pickles one after the other before."""

    name = "PyTorch"
    suffixes = (".bin", ".pt", ".pth", ".ckpt")

    def recognises(self, head: bytes) -> bool:
        """Whether this is a zip archive or the old format's magic number."""
        return head.startswith(archive.MAGIC) or legacy.MAGIC.match(head) is not None

    def read(self, file: OpenFile) -> FileContents:
        """List the state dict's tensors; a pickle is parsed while no other is."""
        saved, places = read_saved(file)
        state, skipped = find_state(saved, file.name)
        entries: list[TensorEntry] = []
        left_out: list[Skipped] = list(skipped)
        for name, tensor in state.items():
            placed = place(name, tensor, places, file.name)
            (entries if isinstance(placed, TensorEntry) else left_out).append(placed)  # type: ignore[arg-type]
        return FileContents(tuple(entries), {}, tuple(left_out))


def read_saved(file: OpenFile) -> tuple[Any, dict[str, StoragePlace]]:
    """What torch.save wrote, with tensors that only say where their numbers lie, and the storages' places.

    Raises:
        CheckpointError: the file is broken, or none of torch.save.
        UnsafeFileError: it names what no state dict needs.
    """
    head = file.head[:32].tobytes()
    if not PyTorch().recognises(head):
        raise _other(file.head, file)
    return (_read_archive if head.startswith(archive.MAGIC) else read_legacy)(file)


def _read_archive(file: OpenFile) -> tuple[Any, dict[str, StoragePlace]]:
    """The saved object of a zip archive, and where each storage's numbers lie."""
    members = read_members(file)
    root = _root(members, file)
    order = members.get(f"{root}/byteorder")
    if order and file.read(stored(order, file).start, min(order.stop, order.start + 6)).tobytes() != b"little":
        remedy = "Save it again on a little-endian machine"
        raise UnsupportedError("the numbers are big-endian", file=file.name, remedy=remedy)
    pickled = stored(members[f"{root}/data.pkl"], file)
    if pickled.size > MAX_PICKLE:
        problem = f"a pickle of {pickled.size} bytes is larger than any state dict's"
        raise CheckpointError(problem, file=file.name, remedy="Save the weights alone")
    stream = ByteStream(file, pickled.start, pickled.stop, "the pickle")
    reader = PickleReader(stream, file.name)
    with file.turn:
        saved = reader.load()
    prefix = f"{root}/data/"
    places = {
        key: StoragePlace(ByteRange(file.name, stored(members[prefix + key], file).start, members[prefix + key].stop))
        for key in reader.calls.storages
        if prefix + key in members
    }
    return saved, places


def _root(members: dict[str, Member], file: OpenFile) -> str:
    """The folder within the archive that holds the one `data.pkl`."""
    roots = [name.removesuffix("/data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    scripted = any(name.endswith("/constants.pkl") or "/code/" in name for name in members)
    if scripted:
        raise UnsupportedError("this is TorchScript: a program with its weights", file=file.name, remedy=_TORCHSCRIPT)
    if len(roots) != 1:
        what = "a zip archive without data.pkl, so not of torch.save"
        if any(name.endswith(".npy") for name in members):
            what = "a NumPy archive (npz)"
        elif "model.weights.h5" in members:
            what = "a Keras archive"
        remedy = "Give the file that torch.save wrote, or save the weights as safetensors"
        raise UnsupportedError(what, file=file.name, remedy=remedy)
    return roots[0]


def _other(head: Bytes, file: OpenFile) -> LlmtrapError:
    """Say what the file is, since it is not what its name says."""
    start = head[:512].tobytes()
    if start[257:262] == b"ustar":
        return UnsupportedError("the tar format of PyTorch before 0.2 is not read", file=file.name, remedy=_TAR)
    if start.startswith(b"\x80") or _TEXT_PICKLE.match(start):
        problem = "a pickle that torch.save did not write: it may hold anything, and loading it could run code"
        return UnsafeFileError(problem, file=file.name, remedy=_BARE)
    if start[:4] == b"GGUF":
        return CheckpointError("this is a GGUF file under another name", file=file.name, remedy="Name it FILE.gguf")
    if start[8:9] == b"{":
        remedy = "Name it FILE.safetensors"
        return CheckpointError("this is a safetensors file under another name", file=file.name, remedy=remedy)
    known = disguise(head, file.name)
    return known or CheckpointError("this is no file of torch.save", file=file.name, remedy=DAMAGED)
