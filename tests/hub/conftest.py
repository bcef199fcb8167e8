"""A loopback hub with one repository of random bytes, and a home without tokens or cached files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint.sources.hub import HubOptions

REPO = "org/model"
SIZES = {"config.json": 700, "model-00001-of-00002.safetensors": 3_000_000}
SIZES |= {"model-00002-of-00002.safetensors": 1_234_567}


@pytest.fixture(autouse=True)
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for the library: no token, no cache, no endpoint. It reads its constants when it is imported."""
    home = tmp_path / "hf"
    home.mkdir()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "LLMTRAP_HUB_PATIENCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return home


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub
    huggingface_hub.close_session()


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """Three files: a small one of git's kind, two of the large kind."""
    draw = np.random.default_rng(7)
    return {name: draw.bytes(size) for name, size in SIZES.items()}


@pytest.fixture
def repo(hub: LoopbackHub, files: dict[str, bytes]) -> str:
    hub.add(REPO, files)
    return REPO


@pytest.fixture
def quick() -> HubOptions:
    """Options under which faults are over in a moment."""
    return HubOptions(patience=5.0, timeout=0.5, piece=256 << 10, budget=2 << 20)
