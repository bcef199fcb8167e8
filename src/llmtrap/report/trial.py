"""Try whether a file can be written, before hours are spent on what goes into it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llmtrap.report.write import explained


def try_writing(path: Path) -> None:
    """Write an empty file where `path` would be written, and remove it; nothing that is there is touched.

    Folders that are missing are not made: the nearest one that is there must take a file.

    Raises:
        OutputError: the path is a folder, lies in none, or its folder takes no file.
    """
    with explained(path):
        place = path.resolve()
        if place.is_dir():
            raise IsADirectoryError
        if place.exists() and not place.is_file():
            if not os.access(place, os.W_OK):  # a pipe or a device is written to as it is
                raise PermissionError
            return
        folder = place.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError
        with tempfile.TemporaryFile(dir=folder):
            pass
