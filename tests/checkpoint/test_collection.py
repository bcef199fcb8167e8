"""The pause of the garbage collector: it ends with the opening, however that ends, and never overrules the caller."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from llmtrap.checkpoint import LocalSource
from llmtrap.checkpoint.collection import collection_paused
from llmtrap.checkpoint.parts import open_parts
from llmtrap.errors import LlmtrapError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    was_on = gc.isenabled()
    yield
    (gc.enable if was_on else gc.disable)()


def test_it_is_off_within_and_on_again_after_the_outermost() -> None:
    gc.enable()
    with collection_paused():
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_caller_who_had_it_off_keeps_it_off() -> None:
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_it_is_on_again_after_a_checkpoint_that_cannot_be_opened(tmp_path: Path) -> None:
    gc.enable()
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(LlmtrapError):
        open_parts(LocalSource(tmp_path))
    assert gc.isenabled()


def test_threads_that_overlap_leave_it_on() -> None:
    gc.enable()
    together = Barrier(4)

    def overlap(_: int) -> bool:
        with collection_paused():
            together.wait(timeout=30)
            return gc.isenabled()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(overlap, range(4))) == [False] * 4
    assert gc.isenabled()
