"""Bytes come out exact, whatever the ranges, and nothing beside them goes over the wire or onto the disk."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint.sources.base import ByteRange, SourceIdentity
from llmtrap.checkpoint.sources.hub import HubOptions, HubSource
from llmtrap.errors import CheckpointError

SMALL, BIG, OTHER = "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def opened(source: HubSource, span: ByteRange) -> bytes:
    with source.open(span) as data:
        return data.tobytes()


def test_lists_in_one_request(hub: LoopbackHub, repo: str, files: dict[str, bytes]) -> None:
    source = HubSource.from_target(repo)
    commit = hub.repositories[repo].refs["main"]
    assert source.identity == SourceIdentity(repo, "hub", commit)
    served = hub.repositories[repo].commits[commit]
    assert [(entry.name, entry.size, entry.digest) for entry in source.files()] == [
        (SMALL, 700, f"git:{served[SMALL].git}"),
        (BIG, 3_000_000, f"sha256:{served[BIG].sha256}"),
        (OTHER, 1_234_567, f"sha256:{served[OTHER].sha256}"),
    ]
    assert [(one.asked.where, one.asked.method) for one in hub.served] == [("api", "GET")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_ranges_in_any_order(
    hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions, data: st.DataObject
) -> None:
    def spans() -> st.SearchStrategy[ByteRange]:
        return st.sampled_from(sorted(files)).flatmap(
            lambda name: st.tuples(st.integers(0, len(files[name])), st.integers(0, len(files[name]))).map(
                lambda ends: ByteRange(name, min(ends), max(ends))
            )
        )

    planned = data.draw(st.lists(spans(), max_size=6))
    used = data.draw(st.lists(st.sampled_from(planned) | spans() if planned else spans(), min_size=1, max_size=6))
    with HubSource.from_target(repo, options=quick) as source:
        source.prefetch(planned)
        for span in used:
            expected = files[span.file][span.start : span.stop]
            assert opened(source, span) == expected
            assert source.read(span).tobytes() == expected


def test_fetches_exactly_what_is_opened(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    spans = [ByteRange(BIG, start, start + 100_000) for start in range(500_000, 2_500_000, 100_000)]
    with HubSource.from_target(repo, options=quick) as source:
        source.prefetch(spans)
        for span in spans:
            opened(source, span)
            opened(source, span)  # a second look costs nothing
        assert source.traffic.bytes == hub.bytes_sent == 2_000_000
    assert hub.count("hub", "HEAD") == 1
    assert hub.count("cdn") == 10  # neighbours are joined as long as a request of 256 KiB holds them


def test_a_header_read_twice_goes_over_the_wire_once(hub: LoopbackHub, repo: str, files: dict[str, bytes]) -> None:
    with HubSource.from_target(repo) as source:
        assert source.read(ByteRange(BIG, 0, 65_536)).tobytes() == files[BIG][:65_536]
        assert source.read(ByteRange(BIG, 8, 80_008)).tobytes() == files[BIG][8:80_008]
        assert source.read(ByteRange(BIG, 8, 60_000)).tobytes() == files[BIG][8:60_000]
    assert hub.bytes_sent == 80_008


def test_writes_nothing_to_disk(hub: LoopbackHub, repo: str, hub_home: Path, tmp_path: Path) -> None:
    with HubSource.from_target(repo) as source:
        for name, size in ((SMALL, 700), (BIG, 3_000_000)):
            source.read(ByteRange(name, 0, size))
            opened(source, ByteRange(name, 0, size))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_token_goes_to_the_hub_alone(hub: LoopbackHub, repo: str, hub_home: Path) -> None:
    (hub_home / "token").write_text("hf_sesame")
    with HubSource.from_target(repo) as source:
        source.read(ByteRange(SMALL, 0, 700))
        opened(source, ByteRange(BIG, 0, 1_000_000))
    tokens = {(one.asked.where, one.asked.token) for one in hub.served}
    assert tokens == {("api", "hf_sesame"), ("hub", "hf_sesame"), ("cdn", None)}


def test_a_copy_asks_nothing_it_knows(hub: LoopbackHub, repo: str, files: dict[str, bytes]) -> None:
    source = HubSource.from_target(repo)
    source.read(ByteRange(BIG, 0, 65_536))
    hub.served.clear()
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert (copy.identity, copy.files(), repr(copy)) == (source.identity, source.files(), repr(source))
    assert opened(copy, ByteRange(BIG, 100, 65_000)) == files[BIG][100:65_000]
    assert hub.served == []
    assert opened(copy, ByteRange(OTHER, 3, 70_000)) == files[OTHER][3:70_000]
    assert hub.count("api") == 0
    copy.close()


def _read_in_a_worker(source: HubSource, span: ByteRange) -> bytes:
    return opened(source, span)


def test_reads_in_forked_processes(hub: LoopbackHub, repo: str, files: dict[str, bytes]) -> None:
    source = HubSource.from_target(repo)
    source.read(ByteRange(SMALL, 0, 700))  # the parent has connections of its own, which no child may touch
    span = ByteRange(BIG, 1_000, 400_000)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as workers:
        found = list(workers.map(_read_in_a_worker, [source] * 3, [span] * 3))
    assert found == [files[BIG][1_000:400_000]] * 3


def test_many_threads_share_one_source(hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions) -> None:
    spans = [ByteRange(BIG, start, start + 60_000) for start in range(0, 2_940_000, 60_000)]
    with HubSource.from_target(repo, options=quick) as source, ThreadPoolExecutor(8) as readers:
        source.prefetch(spans)
        found = list(readers.map(lambda span: opened(source, span), spans))
    assert found == [files[BIG][span.start : span.stop] for span in spans]
    assert hub.count("hub", "HEAD") == 1


def test_refuses_ranges_outside_the_file(hub: LoopbackHub, repo: str) -> None:
    source = HubSource.from_target(repo)
    with pytest.raises(CheckpointError, match="bytes 0 to 701 were asked for, and the file has 700"):
        source.read(ByteRange(SMALL, 0, 701))
    with pytest.raises(CheckpointError, match="no such file in the repository"):
        opened(source, ByteRange("none", 0, 1))
    with pytest.raises(CheckpointError, match="the file has 700"):
        source.prefetch([ByteRange(SMALL, 0, 1 << 40)])
    assert hub.count("cdn") == 0
