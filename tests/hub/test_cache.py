"""The user's cache: what is in it is read from it, `--download` fills it, and offline it is all there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download
from tests.support import hub_faults as faults
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.sources.hub import HubOptions, HubSource
from llmtrap.errors import AccessError, OutputError

SMALL, BIG, OTHER = "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def opened(source: HubSource, name: str, start: int, stop: int) -> bytes:
    with source.open(ByteRange(name, start, stop)) as data:
        return data.tobytes()


def cached(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("snapshots/*/*"))


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def half_cached(hub: LoopbackHub, repo: str) -> str:
    """The repository, one of its large files in the cache."""
    hf_hub_download(repo, BIG, endpoint=hub.endpoint)
    return repo


def test_reads_what_is_cached_from_the_disk(
    hub: LoopbackHub, half_cached: str, files: dict[str, bytes], hub_home: Path
) -> None:
    hub.served.clear()
    with HubSource.from_target(half_cached) as source:
        source.prefetch([ByteRange(BIG, 0, 1_000_000), ByteRange(OTHER, 0, 1_000)])
        assert opened(source, BIG, 5, 900_000) == files[BIG][5:900_000]
        assert source.read(ByteRange(BIG, 0, 3_000_000)).tobytes() == files[BIG]
        assert opened(source, OTHER, 0, 1_000) == files[OTHER][:1_000]
    assert {one.asked.file for one in hub.served if one.asked.where != "api"} == {OTHER}
    assert cached(hub_home) == [BIG]


def test_another_commits_file_is_not_taken_for_this_ones(
    hub: LoopbackHub, half_cached: str, files: dict[str, bytes]
) -> None:
    hub.add(half_cached, {**files, BIG: bytes(3_000_000)})
    with HubSource.from_target(half_cached) as source:
        assert opened(source, BIG, 5, 9) == bytes(4)


def test_a_cached_file_that_was_cut_short_is_not_used(
    hub: LoopbackHub, half_cached: str, files: dict[str, bytes], hub_home: Path
) -> None:
    (blob,) = hub_home.rglob("blobs/*")
    blob.write_bytes(files[BIG][:1_000])
    with HubSource.from_target(half_cached) as source:
        assert opened(source, BIG, 5, 2_000) == files[BIG][5:2_000]


def test_download_keeps_what_is_read(
    hub: LoopbackHub,
    repo: str,
    files: dict[str, bytes],
    hub_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with HubSource.from_target(repo, download=True) as source:
        source.prefetch([ByteRange(BIG, 0, 1_000)])
        assert source.read(ByteRange(OTHER, 0, 8)).tobytes() == files[OTHER][:8]  # a header alone is no reason
        assert cached(hub_home) == []
        assert opened(source, BIG, 10, 20) == files[BIG][10:20]
        assert source.read(ByteRange(SMALL, 0, 700)).tobytes() == files[SMALL]
        assert opened(source, BIG, 1_000, 20_000) == files[BIG][1_000:20_000]
    assert cached(hub_home) == [SMALL, BIG]
    assert hub.bytes_sent == 8 + 3_000_000 + 700
    assert capfd.readouterr().err == ""
    hub.served.clear()
    offline(monkeypatch)
    with HubSource.from_target(repo) as source:
        assert opened(source, BIG, 10, 20) == files[BIG][10:20]
    assert hub.served == []


def test_download_says_what_the_hub_says(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.repositories[repo].gated = True
    with (
        HubSource.from_target(repo, download=True, options=quick) as source,
        pytest.raises(AccessError, match="is gated, and you are not logged in"),
    ):
        opened(source, BIG, 0, 8)


def test_download_outlives_a_busy_hub(
    hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions, caplog: pytest.LogCaptureFixture
) -> None:
    hub.rule = faults.first(2, faults.Status(503), where="hub", method="HEAD")
    with HubSource.from_target(repo, download=True, options=quick) as source:
        assert opened(source, BIG, 0, 8) == files[BIG][:8]


def test_download_to_a_place_that_may_not_be_written(
    hub: LoopbackHub, repo: str, hub_home: Path, monkeypatch: pytest.MonkeyPatch, quick: HubOptions
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/proc/llmtrap")
    with (
        HubSource.from_target(repo, download=True, options=quick) as source,
        pytest.raises(OutputError, match=r"cannot write to /proc/llmtrap .*streaming needs no disk"),
    ):
        opened(source, BIG, 0, 8)


def test_offline_lists_what_is_cached_as_the_hub_would(
    hub: LoopbackHub, half_cached: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = HubSource.from_target(half_cached)
    offline(monkeypatch)
    source = HubSource.from_target(half_cached)
    assert source.identity == online.identity
    assert source.files() == tuple(entry for entry in online.files() if entry.name == BIG)
    assert HubSource.from_target(f"{half_cached}@{source.identity.revision}").files() == source.files()


def test_offline_and_not_cached(hub: LoopbackHub, half_cached: str, monkeypatch: pytest.MonkeyPatch) -> None:
    online = HubSource.from_target(half_cached)
    hub.served.clear()
    offline(monkeypatch)
    for name in ("org/other", f"{half_cached}@v2"):
        with pytest.raises(AccessError, match=r"offline mode is on, and org/.* is not in the cache. Unset HF_HUB_OFFL"):
            HubSource.from_target(name)
    online.prefetch([ByteRange(OTHER, 0, 8)])
    with pytest.raises(AccessError, match=f"{OTHER}: offline mode is on, and this file is not in the cache"):
        opened(online, OTHER, 0, 8)
    assert hub.served == []


def test_offline_without_any_cache(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(AccessError, match="is not in the cache"):
        HubSource.from_target("org/model")


def test_download_keeps_to_its_commit_when_the_branch_moves_on(
    hub: LoopbackHub, repo: str, files: dict[str, bytes]
) -> None:
    with HubSource.from_target(repo, download=True) as source:
        hub.add(repo, {**files, BIG: bytes(3_000_000)})
        assert opened(source, BIG, 10, 20) == files[BIG][10:20]
