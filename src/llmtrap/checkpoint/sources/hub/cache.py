"""The user's hub cache: files that are there already are read from it, and `--download` puts files there."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import tqdm

from llmtrap.checkpoint.sources.base import ByteRange, FileEntry
from llmtrap.checkpoint.sources.hub.errors import Repository, check_busy, explained, transport_faults
from llmtrap.checkpoint.sources.hub.library import hub_agent
from llmtrap.checkpoint.sources.hub.retry import RetryPolicy, UnreachedError
from llmtrap.checkpoint.sources.local import LocalSource
from llmtrap.errors import OutputError


class HubCache:
    """Finds a repository's files in the cache, each once, and opens them as local files.

    Args:
        repository: the repository at one commit: only files cached for this very commit count.
        files: what the listing says of each file; a cached file of another size is not used.
        patience: how long a download's faults are put up with.
    """

    def __init__(self, repository: Repository, files: Mapping[str, FileEntry], patience: RetryPolicy):
        self._repository = repository
        self._files = files
        self._patience = patience
        self._locks = {name: threading.Lock() for name in files}
        self._found: dict[str, LocalSource | None] = {}

    def find(self, file: str) -> LocalSource | None:
        """The cached file, or None."""
        with self._locks[file]:
            return self._find(file)

    def fetch(self, file: str) -> LocalSource:
        """The cached file, downloaded into the cache first where it is not there yet.

        Raises:
            AccessError: the hub refuses, or patience is out.
            OutputError: the cache's disk is full, or may not be written.
        """
        with self._locks[file]:
            local = self._find(file)
            if local is None:
                path = self._patience.call(lambda: self._download(file), what="downloading from the hub", file=file)
                local = self._found[file] = LocalSource(path)
            return local

    def close(self) -> None:
        """Close the files that were opened."""
        for local in self._found.values():
            if local is not None:
                local.close()

    def _find(self, file: str) -> LocalSource | None:
        if file not in self._found:
            repository = self._repository
            path = try_to_load_from_cache(repository.repo_id, file, revision=repository.revision)
            self._found[file] = None
            if isinstance(path, str) and Path(path).stat().st_size == self._files[file].size:
                self._found[file] = LocalSource(path)
        return self._found[file]

    def _download(self, file: str) -> str:
        repository = self._repository
        try:
            with transport_faults("the hub"):
                fetch = partial(
                    hf_hub_download, repository.repo_id, file, endpoint=repository.endpoint, **hub_agent(), **_SILENT
                )
                # By the branch's name, so that the cache notes where it points and can be used offline by that name.
                path = str(fetch(revision=repository.asked))
                pinned = repository.revision in Path(path).parts
                return path if pinned else str(fetch(revision=repository.revision))
        except LocalEntryNotFoundError:
            raise UnreachedError("the hub") from None
        except HfHubHTTPError as error:
            check_busy(error.response, "the hub")
            raise explained(error.response, repository, file) from None
        except OSError as error:
            folder = constants.HF_HUB_CACHE
            remedy = "Make room, set HF_HOME to another disk, or leave out --download: streaming needs no disk"
            raise OutputError(f"cannot write to {folder} ({error.strerror})", file=file, remedy=remedy) from error


class _Silent(tqdm):
    """No progress bar: a library does not print."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]


# Early 1.x has no way to ask one download for silence.
_SILENT: dict[str, Any] = (
    {"tqdm_class": _Silent} if "tqdm_class" in inspect.signature(hf_hub_download).parameters else {}
)


def within(span: ByteRange) -> ByteRange:
    """The same bytes, named as the one-file source of a cached file names them."""
    return ByteRange(span.file.rpartition("/")[2], span.start, span.stop)
