"""Keep the last checkpoint that was saved before a trap, though the trainer deletes old ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmtrap.systems.files import link_or_copy

PREFIX = "before-trap-"


class CheckpointBeforeTrap:
    """Holds hard links to checkpoints until a later check says that they are clean, and to the last clean one for good.

    Links take no room while the trainer keeps the checkpoint itself. The names begin with `before-trap-`, by which no
    trainer looks for checkpoints to delete.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Path]] = []
        self._clean: Path | None = None
        self._last_clean_step = -1
        self._trapped = False

    @property
    def kept(self) -> Path | None:
        """The checkpoint that is kept: the last one saved before the last check without a new trap."""
        return self._clean

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint was saved.

        Raises:
            OSError: it can be neither linked nor copied.
        """
        if self._trapped or not path.exists():
            return
        link = path.with_name(PREFIX + path.name)
        _remove(link)
        if path.is_dir():
            shutil.copytree(path, link, copy_function=link_or_copy)
        else:
            link_or_copy(path, link)
        self._waiting.append((step, link))
        self._settle()

    def clean(self, step: int) -> None:
        """The weights of this step have no new trap."""
        if not self._trapped:
            self._last_clean_step = max(step, self._last_clean_step)
            self._settle()

    def trapped(self) -> Path | None:
        """A new trap was found: keep what is clean, drop what may have it; what is kept, or None."""
        if not self._trapped:
            self._trapped = True
            self.drop_waiting()
        return self._clean

    def drop_waiting(self) -> None:
        """Remove the links of which nothing is known: the trainer's own checkpoints stay."""
        for _, link in self._waiting:
            _remove(link)
        self._waiting.clear()

    def _settle(self) -> None:
        """Of the checkpoints known to be clean keep the newest."""
        clean = [link for step, link in self._waiting if step <= self._last_clean_step]
        if clean:
            for link in (self._clean, *clean[:-1]):
                if link is not None and link != clean[-1]:
                    _remove(link)
            self._clean = clean[-1]
            self._waiting = [(step, link) for step, link in self._waiting if step > self._last_clean_step]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
