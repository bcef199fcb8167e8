"""A repository is pinned to its commit, and every no of the hub says what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import hub_faults as faults
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.sources.hub import HubOptions, HubSource
from llmtrap.errors import AccessError, LlmtrapError, TargetError, UsageError


def test_pins_branches_tags_and_commits(hub: LoopbackHub, repo: str) -> None:
    main = hub.repositories[repo].refs["main"]
    other = hub.add(repo, {"config.json": b"{}"}, ref="refs/pr/3")
    assert HubSource.from_target(repo).identity.revision == main
    assert HubSource.from_target(f"{repo}@refs/pr/3").identity.revision == other
    assert HubSource.from_target(repo, revision="refs/pr/3").identity.revision == other
    assert HubSource.from_target(f"{repo}@{other}").identity.revision == other
    assert HubSource.from_target(f"{hub.endpoint}/{repo}/tree/refs%2Fpr%2F3").identity.revision == other


def test_keeps_to_its_commit_when_the_branch_moves_on(hub: LoopbackHub, repo: str, files: dict[str, bytes]) -> None:
    source = HubSource.from_target(repo)
    hub.add(repo, {"config.json": b"another"}, ref="main")
    assert source.read(ByteRange("config.json", 0, 700)).tobytes() == files["config.json"]


def test_refuses_two_revisions_at_once(hub: LoopbackHub, repo: str) -> None:
    with pytest.raises(UsageError, match="names revision 'a', and --revision says 'b'"):
        HubSource.from_target(f"{repo}@a", revision="b")


def test_asks_for_the_tree_where_the_listing_lacks_sizes(hub: LoopbackHub, repo: str) -> None:
    full = HubSource.from_target(repo)
    hub.sizes_in_info = False
    assert HubSource.from_target(repo).files() == full.files()
    assert hub.count("api") == 3


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "back\\slash", "bell\x07"])
def test_leaves_out_names_that_no_checkpoint_has(hub: LoopbackHub, name: str) -> None:
    hub.add("org/hostile", {"config.json": b"{}", name: b"x"})
    source = HubSource.from_target("org/hostile")
    assert [entry.name for entry in source.files()] == ["config.json"]
    assert list(source.refused.values()) == ["not a plain path inside the repository"]
    assert all(shown.isprintable() for shown in source.refused)


def log_in(home: Path, token: str = "hf_sesame") -> str:  # noqa: S107
    (home / "token").write_text(token)
    return token


def test_missing_repository(hub: LoopbackHub, hub_home: Path) -> None:
    with pytest.raises(AccessError, match=r"no model repository org/none on .*, or it is private.*hf auth login"):
        HubSource.from_target("org/none")
    log_in(hub_home)
    with pytest.raises(TargetError, match="no model repository org/none"):
        HubSource.from_target("org/none")


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_a_name_that_is_a_datasets_or_spaces(hub: LoopbackHub, kind: str) -> None:
    hub.add("org/other", {"data.csv": b"1"}, kind=f"{kind}s")
    with pytest.raises(TargetError, match=f"org/other is a {kind}, and llmtrap audits models"):
        HubSource.from_target("org/other")


def test_missing_revision(hub: LoopbackHub, repo: str) -> None:
    with pytest.raises(TargetError, match=f"{repo} has no revision 'v9'.*{hub.endpoint}/{repo}/tree/main"):
        HubSource.from_target(f"{repo}@v9")


def test_private_repository(hub: LoopbackHub, repo: str, files: dict[str, bytes], hub_home: Path) -> None:
    hub.repositories[repo].private = True
    with pytest.raises(AccessError, match=r"or it is private.*hf auth login"):
        HubSource.from_target(repo)
    hub.tokens.add(log_in(hub_home))
    source = HubSource.from_target(repo)
    assert source.read(ByteRange("config.json", 0, 700)).tobytes() == files["config.json"]


def test_gated_repository(hub: LoopbackHub, repo: str, files: dict[str, bytes], hub_home: Path) -> None:
    hub.repositories[repo].gated = True
    source, span = HubSource.from_target(repo), ByteRange("config.json", 0, 700)
    page = f"{hub.endpoint}/{repo}"
    with pytest.raises(AccessError, match=f"gated, and you are not logged in. Ask for access on {page}.*hf auth login"):
        source.read(span)
    token = log_in(hub_home)
    with pytest.raises(AccessError, match=f"gated, and your account has no access to it yet. Ask for access on {page}"):
        source.read(span)
    hub.tokens.add(token)
    assert source.read(span).tobytes() == files["config.json"]


def test_token_that_the_hub_does_not_accept(hub: LoopbackHub, repo: str, hub_home: Path) -> None:
    hub.refused_tokens.add(log_in(hub_home))
    with pytest.raises(AccessError, match=r"does not accept the token.*hf auth login"):
        HubSource.from_target(repo)


def test_outlives_a_busy_hub(hub: LoopbackHub, repo: str, quick: HubOptions) -> None:
    hub.rule = faults.first(2, faults.Status(503), where="api")
    assert HubSource.from_target(repo, options=quick).identity.name == repo
    assert hub.count("api") == 3


@pytest.mark.parametrize("answer", [faults.Status(418), faults.Status(200, {"Content-Type": "text/html"})])
def test_something_else_answers(hub: LoopbackHub, repo: str, answer: faults.Fault, quick: HubOptions) -> None:
    hub.rule = faults.always(answer, where="api")
    with pytest.raises(LlmtrapError, match="org/model"):
        HubSource.from_target(repo, options=quick)


@pytest.mark.parametrize("endpoint", ["localhost", "http://", "http://[::bad", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_no_address(endpoint: str, monkeypatch: pytest.MonkeyPatch, quick: HubOptions) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(AccessError, match="HF_ENDPOINT"):
        HubSource.from_target("org/model", options=quick)


def test_a_password_in_the_endpoint_is_not_shown(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, quick: HubOptions
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("http://", "http://me:hunter2@"))
    with pytest.raises(AccessError, match=r"no model repository org/none on http://127\.0\.0\.1") as refusal:
        HubSource.from_target("org/none", options=quick)
    assert "hunter2" not in str(refusal.value)


def test_patience_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HubOptions.from_environment({}).patience == 300
    assert HubOptions.from_environment({"LLMTRAP_HUB_PATIENCE": "7.5"}).patience == 7.5
    with pytest.raises(UsageError, match="LLMTRAP_HUB_PATIENCE='soon'"):
        HubOptions.from_environment({"LLMTRAP_HUB_PATIENCE": "soon"})
