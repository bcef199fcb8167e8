"""Every fault of a network, a hub or a file server ends in the exact bytes, or in words that say what to do."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import hub_faults as faults
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.sources.hub import HubOptions, HubSource
from llmtrap.checkpoint.sources.hub.location import MAX_REFUSED_LINKS
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError

SMALL, BIG = "config.json", "model-00001-of-00002.safetensors"
SPAN = ByteRange(BIG, 1_000, 2_001_000)
TOKEN = "hf_sesame"  # noqa: S105


@pytest.fixture(autouse=True)
def nothing_secret_is_shown(caplog: pytest.LogCaptureFixture, hub_home: Path) -> Iterator[None]:
    """Whatever happens, no log of this project holds the token or a signed address."""
    (hub_home / "token").write_text(TOKEN)
    with caplog.at_level(logging.DEBUG, logger="llmtrap"):
        yield
    own = [record.getMessage() for record in caplog.records if record.name.startswith("llmtrap")]
    assert not [line for line in own if TOKEN in line or "Signature" in line or "secret-" in line]


def opened(source: HubSource, span: ByteRange = SPAN) -> bytes:
    with source.open(span) as data:
        return data.tobytes()


def refused(source: HubSource, kind: type[LlmtrapError], words: str, span: ByteRange = SPAN) -> None:
    """Opening the span raises this error, and nothing secret is in it or in its traceback."""
    with pytest.raises(kind, match=words) as raised:
        opened(source, span)
    shown = "".join(traceback.format_exception(raised.value))
    assert TOKEN not in shown
    assert "Signature" not in shown
    assert "secret-" not in shown


@pytest.mark.parametrize(
    "rule",
    [
        faults.first(3, faults.Drop(100_000)),
        faults.first(3, faults.Drop(1_000)),
        faults.first(2, faults.Drop(None)),
        faults.first(1, faults.Drop(None), where="hub", method="HEAD"),
        faults.first(2, faults.Status(500)),
        faults.first(2, faults.Status(503), where="hub", method="HEAD"),
        faults.first(2, faults.Status(429, {"Retry-After": "0"})),
        faults.first(1, faults.Status(429, {"RateLimit": '"resolvers";r=0;t=1'}), where="hub", method="HEAD"),
        faults.first(1, faults.Stall(after=50_000, seconds=1.5)),
        faults.first(1, faults.Stall(after=0, seconds=1.5)),
        faults.first(1, faults.Drip(size=40, pause=0.1)),
        faults.first(2, faults.Status(403)),
    ],
    ids=lambda _: "",
)
def test_outlives(rule: faults.Rule, hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions) -> None:
    hub.rule = rule
    with HubSource.from_target(repo, options=replace(quick, timeout=0.4)) as source:
        assert opened(source) == files[BIG][1_000:2_001_000]
        assert opened(source, ByteRange(SMALL, 0, 700)) == files[SMALL]


def test_carries_on_from_the_last_byte(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.rule = faults.first(4, faults.Drop(200_000))
    with HubSource.from_target(repo, options=replace(quick, piece=2_000_000)) as source:
        opened(source)
        assert hub.bytes_sent == 2_000_000
        assert source.traffic.retries == 4
    starts = [one.asked.range[0] for one in hub.served if one.asked.range]
    assert starts == [1_000, 201_000, 401_000, 601_000, 801_000]


def test_20_percent_of_all_requests_fail(
    hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions
) -> None:
    kinds: list[faults.Fault] = [
        faults.Drop(None),
        faults.Drop(70_000),
        faults.Status(503),
        faults.Status(429, {"Retry-After": "0"}),
        faults.Stall(after=10_000, seconds=0.5),
    ]
    hub.rule = faults.at_random(0.2, kinds, seed=3)
    spans = [ByteRange(BIG, start, start + 50_000) for start in range(0, 3_000_000, 50_000)]
    with HubSource.from_target(repo, options=replace(quick, piece=100_000, timeout=0.3, patience=30)) as source:
        source.prefetch(spans)
        assert b"".join(opened(source, span) for span in spans) == files[BIG]
        assert source.traffic.retries > 0


def test_leaves_the_server_alone_when_asked_to(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.rule = faults.first(1, faults.Status(429, {"Retry-After": "1"}))
    with HubSource.from_target(repo, options=replace(quick, threads=1)) as source:
        opened(source)
    times = [one.at for one in hub.served if one.asked.where == "cdn"]
    assert times[1] - times[0] >= 1.0


def test_gives_up_at_once_when_asked_to_wait_beyond_patience(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.rule = faults.always(faults.Status(429, {"Retry-After": "600"}))
    with HubSource.from_target(repo, options=quick) as source:
        refused(source, AccessError, "failed for 5 seconds: localhost answered 429.*same command.*carries on")
    assert hub.count("cdn") <= quick.threads


def test_network_away_for_longer_than_patience(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    with HubSource.from_target(repo, options=replace(quick, patience=1.5)) as source:
        source.read(ByteRange(SMALL, 0, 700))
        hub.__exit__()
        refused(source, AccessError, "the hub cannot be reached .*Connection refused.*same command.*carries on")


def test_network_away_and_back(hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions) -> None:
    with HubSource.from_target(repo, options=quick) as source:
        back = time.monotonic() + 1.5
        hub.rule = lambda _: faults.Drop(None) if time.monotonic() < back else None
        assert opened(source) == files[BIG][1_000:2_001_000]


def test_failing_answers_do_not_go_on_without_end(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.rule = faults.always(faults.Drop(5_000))
    with HubSource.from_target(repo, options=replace(quick, patience=1.0, threads=2)) as source:
        refused(source, AccessError, "localhost dropped the connection")
    assert hub.count("cdn") < 60


def test_a_range_answered_whole_is_taken_while_small(
    hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions
) -> None:
    hub.rule = faults.always(faults.Whole())
    with HubSource.from_target(repo, options=replace(quick, piece=4_000_000)) as source:
        assert opened(source) == files[BIG][1_000:2_001_000]


def test_a_range_answered_whole_is_refused_when_large(hub: LoopbackHub, quick: HubOptions) -> None:
    hub.add("org/large", {"model.safetensors": bytes(64 << 20)})
    hub.rule = faults.always(faults.Whole())
    with HubSource.from_target("org/large", options=quick) as source:
        span = ByteRange("model.safetensors", 40 << 20, (40 << 20) + 1_000)
        refused(source, CheckpointError, "answers a range of 1000 bytes with the whole file of 67108864.*--down", span)
    assert hub.bytes_sent < 16 << 20


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.Shifted(16), "bytes 1000 to 263143 were asked for, and the server sent others"),
        (faults.Headers({"Content-Range": "bytes 1000-1099"}), "and the server sent others"),
        (faults.Headers({"Content-Range": "bytes 1016-263143/3000000"}), "and the server sent others"),
        (faults.Headers({"Content-Range": "bytes 1000-263143/3000001"}), "the file changed its size since"),
        (faults.Headers({"Content-Encoding": "gzip"}), "localhost compresses what it sends"),
        (faults.Status(416), "the file is shorter than it was listed"),
    ],
)
def test_answers_that_are_not_what_was_asked(
    fault: faults.Fault, words: str, hub: LoopbackHub, repo: str, quick: HubOptions
) -> None:
    hub.rule = faults.always(fault)
    with HubSource.from_target(repo, options=replace(quick, threads=1)) as source:
        refused(source, CheckpointError, words, ByteRange(BIG, 1_000, 263_144))


@pytest.mark.parametrize("size", [3_000_000, 2_999_999])
def test_file_changed_between_two_requests(hub: LoopbackHub, repo: str, quick: HubOptions, size: int) -> None:
    with HubSource.from_target(repo, options=quick) as source:
        opened(source, ByteRange(BIG, 0, 100_000))
        hub.replace(repo, BIG, bytes(size))
        refused(source, CheckpointError, f"{BIG}: the file changed", ByteRange(BIG, 200_000, 300_000))


def test_file_changed_behind_a_hub_that_does_not_say(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.vouches = False
    with HubSource.from_target(repo, options=quick) as source:
        opened(source, ByteRange(BIG, 0, 100_000))
        hub.replace(repo, BIG, bytes(3_000_000))
        refused(source, CheckpointError, "the file changed while it was read", ByteRange(BIG, 200_000, 300_000))


def test_replicas_that_differ_in_their_etags(
    hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions
) -> None:
    """The hub says that the content is the same."""
    hub.rule = faults.chosen(lambda number: number % 3 == 1, faults.Headers({"ETag": '"b"'}), "cdn", "GET")
    with HubSource.from_target(repo, options=quick) as source:
        assert opened(source) == files[BIG][1_000:2_001_000]


def test_file_changed_since_it_was_listed(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    with HubSource.from_target(repo, options=quick) as source:
        hub.replace(repo, BIG, bytes(3_000_000))
        refused(source, CheckpointError, "the file changed since it was listed. Start the audit again")
    assert hub.count("cdn") == 0


def test_links_that_expire_are_asked_for_again(
    hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions
) -> None:
    with HubSource.from_target(repo, options=quick) as source:
        for start in range(0, 600_000, 100_000):
            assert opened(source, ByteRange(BIG, start, start + 100_000)) == files[BIG][start : start + 100_000]
            hub.expire_links()
    assert hub.count("hub", "HEAD") == 6


def test_links_that_never_work(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.rule = faults.always(faults.Status(403))
    with HubSource.from_target(repo, options=replace(quick, threads=2)) as source:
        refused(source, AccessError, "localhost answered 403, to fresh links too")
        refused(source, AccessError, "localhost answered 403, to fresh links too")
    assert hub.count("hub", "HEAD") == 1 + MAX_REFUSED_LINKS


def test_redirects_in_a_circle(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    with HubSource.from_target(repo, options=replace(quick, threads=1)) as source:
        hub.rule = faults.always(faults.Redirect(f"/{repo}/resolve/main/{BIG}"), where="hub", method="HEAD")
        refused(source, CheckpointError, "the hub redirects more than 5 times")
        hub.rule = faults.always(faults.Redirect("/again?Signature=secret-9"))
        refused(source, CheckpointError, "localhost redirects more than 5 times")
    assert hub.count("hub") <= 11
    assert hub.count("cdn") <= 10


def test_a_file_server_that_sends_on(hub: LoopbackHub, repo: str, files: dict[str, bytes], quick: HubOptions) -> None:
    """The token does not come along, not even where the way leads back to the hub's own address."""
    with HubSource.from_target(repo, options=quick) as source:
        commit = source.identity.revision or ""
        hub.rule = faults.first(1, faults.Redirect(hub.link(hub.repositories[repo], commit, BIG)))
        assert opened(source) == files[BIG][1_000:2_001_000]
    with HubSource.from_target(repo, options=quick) as source:
        hub.rule = faults.first(1, faults.Redirect(f"{hub.endpoint}/{repo}/resolve/{commit}/{BIG}"))
        assert opened(source) == files[BIG][1_000:2_001_000]
    tokens = {(one.asked.where, one.asked.method, one.asked.token) for one in hub.served if one.asked.where != "api"}
    assert tokens == {("hub", "HEAD", TOKEN), ("hub", "GET", None), ("cdn", "GET", None)}


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_that_leave_the_web(hub: LoopbackHub, repo: str, to: str, quick: HubOptions) -> None:
    hub.rule = faults.always(faults.Redirect(to), where="hub", method="HEAD")
    with HubSource.from_target(repo, options=quick) as source:
        refused(source, AccessError, "redirects to an address that is not encrypted")


def test_a_token_that_expires_midway(
    hub: LoopbackHub, repo: str, files: dict[str, bytes], hub_home: Path, quick: HubOptions
) -> None:
    hub.repositories[repo].private = True
    hub.tokens |= {TOKEN, "hf_new"}
    with HubSource.from_target(repo, options=replace(quick, piece=4_000_000)) as source:
        opened(source, ByteRange(BIG, 0, 1_000))
        hub.refused_tokens.add(TOKEN)
        hub.expire_links()
        refused(source, AccessError, "the hub does not accept the token.*hf auth login.*carries on")
        (hub_home / "token").write_text("hf_new")
        assert opened(source) == files[BIG][1_000:2_001_000]


def test_closing_ends_what_is_under_way(hub: LoopbackHub, repo: str) -> None:
    hub.bandwidth = 50_000.0
    source = HubSource.from_target(repo, options=HubOptions(piece=500_000))
    source.prefetch([SPAN])
    time.sleep(0.3)
    source.close()
    time.sleep(0.7)
    sent = hub.bytes_sent
    time.sleep(0.5)
    assert hub.bytes_sent - sent < 50_000
