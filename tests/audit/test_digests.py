"""SHA-256 of local files: each is hashed when it is measured, and all are in the report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.small_checkpoint import write_small

from llmtrap.audit import digests as module
from llmtrap.audit.digests import FileDigests
from llmtrap.checkpoint import open_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards."""
    return write_small(tmp_path / "model", layers=2)


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_file_is_hashed_when_it_is_begun_and_the_others_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = module.sha256_of

    def noted(source: object, name: str, *rest: object) -> str | None:
        hashed.append(name)
        return real(source, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "sha256_of", noted)
    first, second = shards(folder)
    with FileDigests(open_checkpoint(str(folder)), wanted=True) as digests:
        digests.begin([second])
        wait_until(lambda: hashed == [second])
        digests.begin([second, second, "no file of this checkpoint"])
        found = digests.wait()

    assert hashed == [second, first]
    assert list(found.items()) == [
        (name, f"sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}") for name in (first, second)
    ]


def test_a_block_that_is_left_early_leaves_no_thread(folder: Path) -> None:
    with pytest.raises(KeyError), FileDigests(open_checkpoint(str(folder)), wanted=True) as digests:
        raise KeyError
    wait_until(lambda: not digests._thread.is_alive())


def test_nothing_is_hashed_that_nobody_wants(folder: Path) -> None:
    with FileDigests(open_checkpoint(str(folder)), wanted=False) as digests:
        digests.begin(shards(folder))
        assert digests.wait() == {}
