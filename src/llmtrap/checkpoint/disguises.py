"""What a file is that has a weight file's name and another content: said by name, with the way to mend it."""

from __future__ import annotations

from llmtrap.checkpoint.sources.base import Bytes
from llmtrap.errors import CheckpointError, LlmtrapError, UnsafeFileError

HEAD = 512
"""Bytes of a file's beginning that tell what it is."""

_PULL = "Fetch the file itself: git lfs pull in the clone, or hf download ORG/NAME --local-dir FOLDER"
_PAGE = "Fetch the file again, logged in where it is gated: hf auth login, then hf download ORG/NAME --local-dir FOLDER"
_WRONG = "The file is not a valid safetensors file: save it again with the safetensors library"
_LFS = b"version https://git-lfs"
_ANSWERS = (
    b"Entry not found", b"Repository not found", b"Access to model", b"Invalid username or password", b"Not Found",
    b"Unauthorized", b"Forbidden", b"AccessDenied", b"Too Many Requests", b"Internal Server Error",
)  # fmt: skip


def disguise(head: Bytes, file: str) -> LlmtrapError | None:
    """What to raise for a file that begins like this and cannot be read as what its name says; None for the unknown.

    Args:
        head: the file's beginning, HEAD bytes or what there is.
        file: its name.
    """
    start = head[:HEAD].tobytes().removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(_LFS):
        problem = "this is a Git LFS pointer and not the file: the repository was cloned without git-lfs"
        return CheckpointError(problem, file=file, remedy=_PULL)
    if start.startswith(b"# xet version"):
        problem = "this is a pointer of git-xet and not the file: the repository was cloned without git-xet"
        return CheckpointError(problem, file=file, remedy=_PULL.replace("git lfs pull", "git xet checkout"))
    if start[:1] == b"<" and start[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        problem = "this is a web page (HTML or XML) under a weight file's name, such as a login or an error page"
        return CheckpointError(problem, file=file, remedy=_PAGE)
    if start.startswith(_ANSWERS) or start.startswith((b'{"error"', b'{"message"')):
        return CheckpointError("this is a server's error message, saved as a file", file=file, remedy=_PAGE)
    return None


def disguised_weights(head: Bytes, file: str) -> LlmtrapError | None:
    """The same for a .safetensors file: another container under its name, too."""
    magic = head[:4].tobytes()
    if magic == b"PK\x03\x04" or (magic[:1] == b"\x80" and magic[1:2] in (b"\2", b"\3", b"\4", b"\5")):
        problem = "this is a pickle, or an archive of one, under a safetensors name"
        remedy = "It was not opened, since loading a pickle can run code: get the checkpoint from a source you trust"
        return UnsafeFileError(problem, file=file, remedy=remedy)
    if magic == b"GGUF":
        return CheckpointError("this is a GGUF file under a safetensors name", file=file, remedy=_WRONG)
    return disguise(head, file)
