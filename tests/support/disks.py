"""A disk so small that it is full at once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tiny_disk(place: Path) -> Iterator[Path]:
    """Mount 64 KiB at a new folder; the test is skipped, with the reason, where that is not allowed."""
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
    mounted = subprocess.run(command, capture_output=True, check=False, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def enlarge(place: Path) -> None:
    """Give a tiny disk 10 MiB."""
    subprocess.run(["mount", "-o", "remount,size=10m", place], check=True)
