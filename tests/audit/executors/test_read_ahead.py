"""Reading ahead: every byte is right, read once, in bounded memory, and errors reach whoever asked."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from tests.support.processes import wait_for

from llmtrap.audit.executors.read_ahead import ReadAhead
from llmtrap.checkpoint import LocalSource
from llmtrap.checkpoint.sources.base import ByteRange, Bytes
from llmtrap.errors import CheckpointError

SIZE = 1000


class Recording(LocalSource):
    """Keeps what was read, and by which thread; may be held up."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.seen: list[tuple[ByteRange, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def read(self, span: ByteRange) -> Bytes:
        if threading.current_thread() is not threading.main_thread():
            assert self.gate.wait(60)
        self.seen.append((span, threading.current_thread().name.split("_")[0]))
        return super().read(span)


@pytest.fixture
def source(tmp_path: Path) -> Recording:
    (tmp_path / "w.bin").write_bytes(np.arange(SIZE, dtype=np.uint8).tobytes())
    return Recording(tmp_path)


def spans(size: int) -> list[ByteRange]:
    return [ByteRange("w.bin", start, start + size) for start in range(0, SIZE, size)]


def test_what_is_named_is_read_once_by_the_other_thread(source: Recording) -> None:
    ahead = ReadAhead(source)
    ahead.prefetch(spans(100))
    ahead.prefetch(spans(100))
    wait_for(lambda: len(source.seen) == 10, "all to be read")
    found = np.concatenate([ahead.read(span) for span in spans(100)])
    ahead.close()
    assert found.tolist() == np.arange(SIZE, dtype=np.uint8).tolist()
    assert source.seen == [(span, "read-ahead") for span in spans(100)]


def test_what_has_not_begun_is_read_at_once(source: Recording) -> None:
    ahead = ReadAhead(source)
    source.gate.clear()
    first, second, third = spans(100)[:3]
    ahead.prefetch([first, second, third])
    assert ahead.read(third).tolist() == list(range(200, 256)) + list(range(44))
    assert source.seen == [(third, "MainThread")]
    source.gate.set()
    assert ahead.read(first).tolist() == list(range(100))
    out = np.empty(100, dtype=np.uint8)
    ahead.read_into(second, out)
    assert out.tolist() == list(range(100, 200))
    with ahead.open(first) as again:
        assert again.tolist() == list(range(100))
    ahead.close()


def test_no_more_than_the_budget_lies_ready_and_what_is_no_longer_named_goes(source: Recording) -> None:
    ahead = ReadAhead(source, budget=250)
    source.gate.clear()
    ahead.prefetch(spans(100))
    ahead.prefetch(spans(100)[5:])
    source.gate.set()
    for span in spans(100):
        ahead.read(span)
    ahead.close()
    other = {span.start for span, name in source.seen if name == "read-ahead"}
    # The first had begun when it was dropped
    assert other <= {0, 500, 600}


def test_an_error_reaches_whoever_reads(source: Recording) -> None:
    ahead = ReadAhead(source)
    beyond = ByteRange("w.bin", SIZE, SIZE + 5)
    ahead.prefetch([beyond])
    with pytest.raises(CheckpointError, match="the file has 1000"):
        ahead.read(beyond)
    ahead.close()
