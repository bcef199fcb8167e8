"""`open_source` hands every form of a hub's name to the hub, and no path to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint.sources import LocalSource, open_source
from llmtrap.checkpoint.sources.hub import HubSource
from llmtrap.errors import TargetError

FORMS = ["{repo}", "{repo}@main", "models/{repo}", "hf://{repo}", "{endpoint}/{repo}/tree/main"]


@pytest.mark.parametrize("form", FORMS)
def test_opens_a_repository(form: str, hub: LoopbackHub, repo: str) -> None:
    source = open_source(form.format(repo=repo, endpoint=hub.endpoint))
    assert isinstance(source, HubSource)
    assert source.identity.name == repo


def test_takes_a_revision_beside_the_name(hub: LoopbackHub, repo: str) -> None:
    other = hub.add(repo, {"config.json": b"{}"}, ref="dev")
    assert open_source(repo, revision="dev").identity.revision == other


def test_a_path_that_exists_wins(hub: LoopbackHub, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / repo).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_source(repo), LocalSource)
    assert hub.served == []


@pytest.mark.parametrize("target", ["./org/name", "../name", "/org/name", "org/name/file.safetensors", "name"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(target: str, hub: LoopbackHub) -> None:
    with pytest.raises(TargetError, match="no such file or folder"):
        open_source(target)
    assert hub.served == []


@pytest.mark.parametrize("target", ["datasets/org/name", "spaces/org/name", "huggingface.co/datasets/org/name"])
def test_what_is_no_model_is_refused_by_name(target: str, hub: LoopbackHub) -> None:
    with pytest.raises(TargetError, match=r"named as a (dataset|space), and llmtrap audits models"):
        open_source(target)
    assert hub.served == []
