"""SHA-256 of the local files of a checkpoint, computed beside the measuring, each file while it is measured.

What was just read is in the page cache: a model larger than the memory is read from its disk once.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable
from queue import SimpleQueue
from types import TracebackType

from llmtrap.checkpoint import Checkpoint, Source
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.errors import LlmtrapError

_PIECE = 8 << 20  # bytes read at once; hashing them lets other threads run
_STOP_SECONDS = 2.0
"""How long the end of a run waits for the thread."""


class FileDigests:
    """Hashes the checkpoint's own files in one thread while the block runs.

        with FileDigests(checkpoint, wanted=True) as digests:
            ...  # measure, and say of which files by `begin`
            found = digests.wait()

    Files of a hub have digests already, and those of an object store are not fetched a second time. A file that cannot
    be read to its end has none: what is wrong with it is told where its weights are measured.
    """

    def __init__(self, checkpoint: Checkpoint, *, wanted: bool):
        """Begin nothing yet; without `wanted` nothing is ever hashed."""
        catalogue = checkpoint.catalogue
        identities = (catalogue.identity, catalogue.base)
        local = all(identity is None or identity.kind in ("folder", "file") for identity in identities)
        files = [file for file in catalogue.files if file.digest is None] if wanted and local else []
        self._sizes = {file.name: file.size for file in files}
        self._waiting = dict(self._sizes)
        self._begun: SimpleQueue[str | None] = SimpleQueue()
        self._source = checkpoint.source
        self._stop = threading.Event()
        self._found: dict[str, str] = {}
        self._thread = threading.Thread(target=self._hash_all, name="llmtrap-digests", daemon=True)

    def __enter__(self) -> FileDigests:
        if self._sizes:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._begun.put(None)
        if self._thread.is_alive():
            # It stops at the end of a piece; one that a file system never gives holds nobody up
            self._thread.join(_STOP_SECONDS)

    def begin(self, names: Iterable[str]) -> None:
        """Hash these files now: their bytes are being read, or were just now. Those begun already are left alone."""
        for name in names:
            if self._waiting.pop(name, None) is not None:
                self._begun.put(name)

    def wait(self) -> dict[str, str]:
        """The digests by file name, as `sha256:HEX`, once the thread is through, or stopped."""
        self.begin(list(self._waiting))
        self._begun.put(None)
        if self._thread.is_alive():
            self._thread.join()
        return {name: self._found[name] for name in self._sizes if name in self._found}

    def _hash_all(self) -> None:
        while (name := self._begun.get()) is not None and not self._stop.is_set():
            with contextlib.suppress(OSError, LlmtrapError):
                digest = sha256_of(self._source, name, self._sizes[name], self._stop)
                if digest is not None:
                    self._found[name] = digest


def sha256_of(source: Source, name: str, size: int, stop: threading.Event | None = None) -> str | None:
    """`sha256:HEX` of a file's first `size` bytes; None where `stop` was set before its end.

    Raises:
        LlmtrapError: the file cannot be read.
    """
    total = hashlib.sha256()
    for start in range(0, size, _PIECE):
        if stop is not None and stop.is_set():
            return None
        with source.open(ByteRange(name, start, min(start + _PIECE, size))) as data:
            total.update(data.data)
    return f"sha256:{total.hexdigest()}"
