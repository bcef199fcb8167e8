"""`open_source` hands every form of a hub's name to the hub, and no path to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import hub_faults as faults
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint import sources
from llmtrap.checkpoint.sources import ByteRange, LocalSource, SourceIdentity, open_source
from llmtrap.checkpoint.sources.hub import HubSource
from llmtrap.errors import AccessError, TargetError, UsageError

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


@pytest.mark.parametrize("target", ["./org/name", "../name", "/org/name", "org/na me", "name"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(target: str, hub: LoopbackHub) -> None:
    with pytest.raises(TargetError, match="no such file or folder"):
        open_source(target)
    assert hub.served == []


def test_a_mistyped_path_is_not_looked_for_on_the_hub(
    hub: LoopbackHub, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "checkpoint-500").mkdir(parents=True)
    (tmp_path / "runs" / "checkpoint-500" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError) as caught:
        open_source("runs/checkpoint-50O")
    assert caught.value.message == (
        "runs/checkpoint-50O: no such file or folder. "
        "Did you mean runs/checkpoint-500? For the hub's repository of that name give hf://runs/checkpoint-50O"
    )
    with pytest.raises(
        TargetError, match=r"no such file or folder\. Did you mean runs/checkpoint-500/model\.safetensors"
    ):
        open_source("runs/checkpoint-500/model.safetensor")
    assert hub.served == []
    (tmp_path / repo).with_name("modell").mkdir(parents=True)
    assert isinstance(open_source(f"hf://{repo}"), HubSource)
    (tmp_path / "org" / "modell").rename(tmp_path / "org" / "other")
    assert isinstance(open_source(repo), HubSource)


def test_a_name_that_neither_disk_nor_hub_has_says_so_of_both(hub: LoopbackHub, repo: str) -> None:
    with pytest.raises(
        TargetError, match="no such file or folder here; and of a hub repository of that name: there is"
    ):
        open_source("org/nothing")


FOLDERS = {f"{folder}/model.safetensors": folder.encode() for folder in ("unet", "text_encoder", "a/b")}


@pytest.mark.parametrize(
    "form",
    ["{0}/unet", "{0}/unet@main", "hf://{0}@main/unet", "{1}/{0}/tree/main/unet", "{1}/{0}/blob/main/unet/config.json"],
)
def test_opens_a_folder_of_a_repository(form: str, hub: LoopbackHub) -> None:
    commit = hub.add("org/pipe", {**FOLDERS, "unet/config.json": b"{}", "model_index.json": b"{}"})
    source = open_source(form.format("org/pipe", hub.endpoint))
    assert [file.name for file in source.files()] == ["config.json", "model.safetensors"]
    assert source.identity == SourceIdentity("org/pipe/unet", "hub", commit)
    assert source.read(ByteRange("model.safetensors", 0, 4)).tobytes() == b"unet"


def test_opens_a_subfolder_by_the_option_too(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("org/pipe", FOLDERS)
    assert open_source("org/pipe", subfolder="a/b").identity.name == "org/pipe/a/b"
    (tmp_path / "unet").mkdir()
    assert open_source(str(tmp_path), subfolder="unet").identity.name == str(tmp_path / "unet")
    with pytest.raises(UsageError, match="no folder within the target"):
        open_source("org/pipe", subfolder="../other")


def test_one_file_of_a_repository_is_read_without_its_neighbours(hub: LoopbackHub) -> None:
    files = {"a-Q4.gguf": b"4", "a-Q8.gguf": b"8", "s-00001-of-00002.gguf": b"1", "config.json": b"{}"}
    hub.add("org/quants", files)
    assert [file.name for file in open_source("org/quants/a-Q4.gguf").files()] == ["a-Q4.gguf", "config.json"]
    assert len(open_source("org/quants/s-00001-of-00002.gguf").files()) == len(files)


def test_a_folder_that_a_repository_has_not_is_refused_with_those_it_has(hub: LoopbackHub) -> None:
    hub.add("org/pipe", FOLDERS)
    with pytest.raises(
        TargetError, match=r"there is no folder 'vae' in it\. Give one of its folders: a/b, text_encoder, unet"
    ):
        open_source("org/pipe/vae")


@pytest.mark.parametrize("target", ["datasets/org/name", "spaces/org/name", "huggingface.co/datasets/org/name"])
def test_what_is_no_model_is_refused_by_name(target: str, hub: LoopbackHub) -> None:
    with pytest.raises(TargetError, match=r"named as a (dataset|space), and llmtrap audits models"):
        open_source(target)
    assert hub.served == []


def test_a_bare_name_may_be_a_mistyped_path_and_is_given_up_soon(
    hub: LoopbackHub, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_FIRST_CONTACT", 1.0)
    monkeypatch.setenv("LLMTRAP_HUB_PATIENCE", "2.5")
    hub.rule = lambda _: faults.Drop(None)
    with pytest.raises(AccessError, match=r"no such file or folder here; and of a hub .* for 1 seconds: the hub"):
        open_source("no/such/place")
    with pytest.raises(AccessError, match=r"failed for 2\.5 seconds: the hub"):
        open_source("hf://no/such")
