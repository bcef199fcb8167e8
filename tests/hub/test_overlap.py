"""The link and the computation work at the same time, and what is held ahead stays within its budget."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint.sources.base import ByteRange, Bytes
from llmtrap.checkpoint.sources.hub import HubOptions, HubSource
from llmtrap.checkpoint.sources.hub.prefetch import Prefetcher
from llmtrap.checkpoint.sources.hub.retry import ClosedError

BIG = "model-00001-of-00002.safetensors"


def test_computation_waits_only_for_what_the_link_lacks(hub: LoopbackHub, repo: str) -> None:
    """3 MB at 2 MB/s take 1.5 s; so does computing on them: together 1.5 s and a little, not 3 s."""
    hub.bandwidth = 2_000_000.0
    spans = [ByteRange(BIG, start, start + 100_000) for start in range(0, 3_000_000, 100_000)]
    with HubSource.from_target(repo, options=HubOptions(piece=100_000, threads=4)) as source:
        source.prefetch(spans)
        computing = 0.0
        for span in spans:
            with source.open(span):
                began = time.monotonic()
                time.sleep(0.05)
                computing += time.monotonic() - began
        # What the reader waited is what the link needed beyond the computation, and the first pieces.
        assert source.waited < max(0.0, 1.5 - computing) + 0.6


def test_waiting_is_bounded_by_the_link_when_there_is_nothing_to_compute(hub: LoopbackHub, repo: str) -> None:
    hub.bandwidth = 3_000_000.0
    spans = [ByteRange(BIG, start, start + 100_000) for start in range(0, 3_000_000, 100_000)]
    with HubSource.from_target(repo, options=HubOptions(piece=100_000, threads=4)) as source:
        source.prefetch(spans)
        for span in spans:
            with source.open(span):
                pass
        assert 0.8 < source.waited < 2.5


class Tape:
    """Fetches numbered bytes and remembers the order; `gate` holds every fetch back until it is set."""

    def __init__(self) -> None:
        self.fetched: list[ByteRange] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def fetch(self, span: ByteRange) -> Bytes:
        self.gate.wait(5)
        self.fetched.append(span)
        if self.broken:
            raise OSError("broken tape")
        return (np.arange(span.start, span.stop) % 251).astype(np.uint8)

    def settle(self) -> int:
        """Bytes fetched once nothing more is."""
        before = -1
        while before != len(self.fetched):
            before = len(self.fetched)
            time.sleep(0.05)
        return sum(span.size for span in self.fetched)


@pytest.fixture
def tape() -> Tape:
    return Tape()


def span(start: int, stop: int, file: str = "f") -> ByteRange:
    return ByteRange(file, start, stop)


def expected(start: int, stop: int) -> list[int]:
    return [position % 251 for position in range(start, stop)]


def prefetcher(tape: Tape, *, budget: int, keep: int = 100_000, threads: int = 1) -> Prefetcher:
    return Prefetcher(tape.fetch, budget=budget, keep=keep, piece=100, threads=threads)


def read(ahead: Prefetcher, start: int, stop: int) -> list[int]:
    data = ahead.take(span(start, stop)).tolist()
    ahead.done_with(span(start, stop))
    return data


def test_fetches_ahead_in_order_up_to_the_budget(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=400)
    ahead.plan([span(0, 200), span(200, 300), span(600, 1_000)])
    assert tape.settle() == 400
    assert tape.fetched == [span(0, 100), span(100, 200), span(200, 300), span(600, 700)]
    assert ahead.take(span(0, 150)).tolist() == expected(0, 150)
    assert tape.settle() == 400  # lent, not used yet
    ahead.done_with(span(0, 150))
    assert tape.settle() == 500  # the first piece made room; the second is used in half
    ahead.close()


def test_numbers_and_scales_named_by_turns_are_two_requests(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=400)
    ahead.plan([span(0, 40), span(900, 910), span(40, 80), span(910, 920), span(80, 100), span(920, 930)])
    assert tape.settle() == 130
    assert tape.fetched == [span(0, 100), span(900, 930)]
    ahead.close()


def test_long_spans_are_cut_evenly(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=400)
    assert read(ahead, 0, 220) == expected(0, 220)
    assert tape.fetched == [span(0, 73), span(73, 146), span(146, 220)]
    ahead.close()


def test_a_reader_never_waits_for_the_budget(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=200, threads=2)
    ahead.plan([span(0, 200)])
    tape.settle()
    assert read(ahead, 5_000, 6_000) == expected(5_000, 6_000)
    assert read(ahead, 150, 250) == expected(150, 250)
    ahead.close()


def test_what_a_reader_wants_comes_before_what_is_planned(tape: Tape) -> None:
    tape.gate.clear()
    ahead = prefetcher(tape, budget=10_000)
    ahead.plan([span(0, 1_000)])
    reader = threading.Thread(target=ahead.take, args=(span(900, 1_000),))
    reader.start()
    time.sleep(0.1)
    tape.gate.set()
    reader.join(5)
    assert span(900, 1_000) in tape.fetched[:2]
    ahead.close()


def test_a_matrix_larger_than_the_budget_is_fetched_once_however_often_it_is_read(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=200)
    ahead.plan([span(0, 1_000)])
    for _ in range(3):
        for start in range(0, 1_000, 50):
            assert read(ahead, start, start + 50) == expected(start, start + 50)
    assert tape.settle() == 1_000
    ahead.close()


def test_what_exceeds_the_limit_of_keeping_is_fetched_again_and_no_more(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=200, keep=700)
    ahead.plan([span(0, 1_000)])
    for _ in range(2):
        for start in range(0, 1_000, 100):
            assert read(ahead, start, start + 100) == expected(start, start + 100)
    assert tape.settle() == 1_300
    ahead.close()


def test_what_no_plan_names_is_kept_within_the_budget(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=300)
    for _ in range(3):
        for start in (0, 100, 200):
            read(ahead, start, start + 100)
    assert tape.settle() == 300
    read(ahead, 300, 400)
    read(ahead, 200, 300)
    assert tape.settle() == 400
    read(ahead, 0, 100)
    assert tape.settle() == 500
    ahead.close()


def test_a_new_plan_drops_what_it_does_not_name(tape: Tape) -> None:
    """A matrix given up halfway must not block the way for those that follow."""
    ahead = prefetcher(tape, budget=400)
    ahead.plan([span(0, 1_000), span(5_000, 5_100)])
    read(ahead, 0, 50)
    assert tape.settle() == 400
    ahead.plan([span(5_000, 5_100), span(6_000, 6_300)])
    assert tape.settle() == 800
    assert read(ahead, 5_000, 6_000)[:100] == expected(5_000, 5_100)
    assert read(ahead, 6_000, 6_300) == expected(6_000, 6_300)
    before = tape.settle()
    read(ahead, 50, 100)
    assert tape.settle() == before + 50
    ahead.close()


def test_a_fault_reaches_its_reader_and_the_next_try_is_a_new_one(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=400, threads=2)
    tape.broken = True
    ahead.plan([span(0, 100)])
    tape.settle()
    with pytest.raises(OSError, match="broken tape"):
        ahead.take(span(0, 50))
    tape.broken = False
    assert ahead.take(span(0, 50)).tolist() == expected(0, 50)
    ahead.close()


def test_what_is_lent_cannot_be_written(tape: Tape) -> None:
    ahead = prefetcher(tape, budget=400)
    for lent in (ahead.take(span(0, 50)), ahead.take(span(50, 150)), ahead.take(span(0, 0))):
        assert not lent.flags.writeable
    ahead.close()


def test_closing_wakes_waiting_readers(tape: Tape) -> None:
    tape.gate.clear()
    ahead = prefetcher(tape, budget=400)
    threading.Timer(0.2, ahead.close).start()
    with pytest.raises(ClosedError):
        ahead.take(span(0, 50))
    with pytest.raises(ClosedError):
        ahead.take(span(0, 50))
    tape.gate.set()
