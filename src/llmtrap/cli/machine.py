"""What the machine is to blame for, in words: no memory, no descriptors, no disk, no threads."""

from __future__ import annotations

import errno

from llmtrap.cli.streams import StandardOutputError

_WORDS = {
    errno.EMFILE: ("too many files are open", "Raise the limit (ulimit -n 1024)"),
    errno.ENFILE: ("too many files are open on this machine", "End other programs"),
    errno.ENOMEM: ("no memory is left", "Use fewer --workers, or raise the limit (ulimit -v)"),
    errno.EAGAIN: ("no more processes or threads can be started", "Raise the limits (ulimit -u, ulimit -v)"),
    errno.ENOSPC: ("the disk is full", "Free some space, or set TMPDIR to another disk"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or set TMPDIR to another disk"),
    errno.EFBIG: ("a file would pass the limit of its size", "Raise the limit (ulimit -f)"),
    errno.EIO: ("the disk or its connection failed (input/output error)", "Check it, and copy the files elsewhere"),
    errno.ESTALE: ("a file on the network is no longer there (stale handle)", "Mount the file system again"),
    errno.ELOOP: ("too many symbolic links lead to one another", "Name the file itself"),
    errno.ENAMETOOLONG: ("a file's name is too long", "Choose a shorter path"),
    errno.EACCES: ("permission denied", "Check the permissions"),
    errno.EPERM: ("permission denied", "Check the permissions"),
    errno.EROFS: ("the file system is read-only", "Name another place"),
}  # fmt: skip
# What the machine answers to a mistake of ours.
_OURS = {errno.ENOENT, errno.EBADF, errno.EINVAL, errno.EFAULT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}


def machine_fault(error: BaseException) -> str | None:
    """What happened and what to do about it, where the machine or its limits caused an error; else None."""
    if isinstance(error, StandardOutputError):
        return f"standard output cannot be written ({error.strerror}). Send it to another place"
    if isinstance(error, MemoryError):
        problem, remedy = _WORDS[errno.ENOMEM]
        return f"{problem}. {remedy}"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        problem, remedy = _WORDS[errno.EAGAIN]
        return f"{problem}. {remedy}"
    if isinstance(error, ImportError) and any(word in str(error) for word in ("cannot allocate", "failed to map")):
        problem, remedy = _WORDS[errno.ENOMEM]
        return f"{problem} to load a library. {remedy}"
    if not isinstance(error, OSError) or error.errno is None or error.errno in _OURS:
        return None
    problem, remedy = _WORDS.get(error.errno, (str(error.strerror or "the system refused"), "Check the machine"))
    place = next((str(name) for name in (error.filename, error.filename2) if name is not None), None)
    return f"{place}: {problem}. {remedy}" if place else f"{problem}. {remedy}"
