"""Checkpoints in an object store: a real S3 server on loopback, read through the real driver."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.small_checkpoint import ids, write_small

from llmtrap.audit import AuditSettings, audit
from llmtrap.checkpoint import LocalSource, open_checkpoint
from llmtrap.checkpoint.sources import ByteRange, open_source
from llmtrap.checkpoint.sources.hub import HubOptions
from llmtrap.checkpoint.sources.remote import RemoteSource
from llmtrap.errors import AccessError, CheckpointError, MissingExtraError, TargetError

pytest.importorskip("s3fs", reason="the driver for S3 is an extra")
pytest.importorskip("moto", reason="the S3 server of the tests")

from tests.support.s3 import KEYS, Asked, S3Server

QUICK = HubOptions(patience=8.0, piece=1 << 12, budget=1 << 16)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server with its keys in the environment, and nobody's own configuration."""
    settings = {
        **KEYS,
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name in ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    server.asked.clear()
    yield server
    server.fault = lambda _: None


@pytest.fixture(scope="module")
def model(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_small(tmp_path_factory.mktemp("s3") / "model")
    server.upload("models", folder, "team/run-1/")
    return folder


URL = "s3://models/team/run-1"


@pytest.mark.parametrize("url", [URL, f"{URL}/"])
def test_a_checkpoint_in_a_bucket_is_the_one_on_disk(s3: S3Server, model: Path, url: str) -> None:
    there, here = open_checkpoint(url), open_checkpoint(str(model))
    assert there.catalogue.identity.label == url.rstrip("/") == there.source.identity.name
    assert there.catalogue.identity.kind == "remote"
    assert {matrix.id for matrix in there.matrices} == ids()
    for one, other in zip(there.matrices, here.matrices, strict=True):
        np.testing.assert_array_equal(one.read(there.source), other.read(here.source))
    there.source.close()


def test_weights_are_streamed_by_ranges_and_ahead(s3: S3Server, model: Path) -> None:
    source = RemoteSource.from_url(URL, options=QUICK)
    file = "model-00001-of-00002.safetensors"
    spans = [ByteRange(file, start, start + 5000) for start in (1000, 6000, 20000)]
    source.prefetch(spans)
    local = LocalSource(model)
    for span in spans:
        with source.open(span) as data:
            np.testing.assert_array_equal(data, local.read(span))
    ranges = [asked.range for asked in s3.asked if asked.method == "GET" and asked.path.endswith(file)]
    assert ranges
    assert all(text.startswith("bytes=") for text in ranges)
    lengths = [int(text.partition("-")[2]) - int(text.partition("=")[2].partition("-")[0]) + 1 for text in ranges]
    assert max(lengths) <= QUICK.piece
    assert sum(lengths) <= 2 * 15000
    source.close()


def test_an_audit_of_a_bucket_with_workers_gives_the_report_of_the_disk(s3: S3Server, model: Path) -> None:
    settings = AuditSettings(alpha=False)
    there = audit(URL, settings=settings, workers=2, journal=False)
    here = audit(str(model), settings=settings, workers=1, journal=False)
    assert there.target.name == URL
    assert [(m.id, m.traps) for m in there.matrices] == [(m.id, m.traps) for m in here.matrices]


def test_a_copy_in_another_process_lists_nothing_again(s3: S3Server, model: Path) -> None:
    source = RemoteSource.from_url(URL, options=QUICK)
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    s3.asked.clear()
    assert copy.read(ByteRange("config.json", 0, 1)).tobytes() == b"{"
    assert all(asked.path.endswith("config.json") for asked in s3.asked)


def test_one_file_is_a_target_of_its_own(s3: S3Server, model: Path, tmp_path: Path) -> None:
    save_file({"a.weight": np.ones((3, 4), np.float32)}, tmp_path / "one.safetensors")
    save_file({"b.weight": np.ones((3, 4), np.float32)}, tmp_path / "two.safetensors")
    s3.upload("files", tmp_path)
    assert [m.tensor for m in open_checkpoint("s3://files/two.safetensors").matrices] == ["b.weight"]
    assert len(open_checkpoint("s3://files").matrices) == 2


def test_a_subfolder_and_the_parts_of_a_pipeline(s3: S3Server, tmp_path: Path) -> None:
    for part in ("unet", "text_encoder"):
        (tmp_path / part).mkdir()
        save_file({f"{part}.weight": np.ones((3, 4), np.float32)}, tmp_path / part / "model.safetensors")
    (tmp_path / "model_index.json").write_text("{}")
    s3.upload("pipe", tmp_path)
    assert len(open_checkpoint("s3://pipe").matrices) == 2
    assert len(open_checkpoint("s3://pipe/unet").matrices) == 1
    assert open_checkpoint("s3://pipe", subfolder="unet").catalogue.identity.name == "s3://pipe/unet"


def test_faults_are_outlived(s3: S3Server, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)  # its own, before ours
    source = RemoteSource.from_url(URL, options=HubOptions(patience=60.0))
    left = [3]

    def fault(asked: Asked) -> int | None:
        if asked.method == "GET" and asked.range and left[0]:
            left[0] -= 1
            return 503
        return None

    s3.fault = fault
    span = ByteRange("model-00002-of-00002.safetensors", 10, 2000)
    np.testing.assert_array_equal(source.read(span), LocalSource(model).read(span))
    assert left == [0]


def test_a_store_that_stays_down_is_given_up(s3: S3Server, model: Path) -> None:
    source = RemoteSource.from_url(URL, options=HubOptions(patience=1.0))
    s3.fault = lambda _: 500
    with pytest.raises(AccessError, match=r"config\.json: reading from the store failed for 1 seconds"):
        source.read(ByteRange("config.json", 0, 1))


def test_an_object_that_changes_while_it_is_read_is_noticed(s3: S3Server, tmp_path: Path) -> None:
    save_file({"a.weight": np.ones((30, 40), np.float32)}, tmp_path / "model.safetensors")
    s3.upload("changing", tmp_path)
    source = RemoteSource.from_url("s3://changing", options=QUICK)
    save_file({"a.weight": np.zeros((30, 40), np.float32)}, tmp_path / "model.safetensors")
    s3.upload("changing", tmp_path)
    with pytest.raises(CheckpointError, match="the file changed since it was listed"):
        source.read(ByteRange("model.safetensors", 0, 100))


def test_equal_objects_have_equal_digests_and_others_do_not(s3: S3Server, model: Path) -> None:
    s3.upload("copies", model, "again/")
    first, again = (open_source(url).files() for url in (URL, "s3://copies/again"))
    assert [file.digest for file in first] == [file.digest for file in again]
    assert len({file.digest for file in first}) == len(first)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://models/nothing", "nothing at this URL"),
        ("s3://no-such-bucket/x", "nothing at this (place|URL)"),
        ("nosuch://bucket/x", "there is no protocol nosuch://"),
    ],
)
def test_what_is_not_there_is_said_at_once(s3: S3Server, model: Path, url: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        open_source(url)


def test_a_store_that_refuses_says_how_to_log_in(s3: S3Server, model: Path) -> None:
    s3.fault = lambda _: 403
    with pytest.raises(AccessError, match=r"refuses to let this be read.*AWS_PROFILE"):
        open_source(URL)


def test_a_driver_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"gs://.*llmtrap\[remote\]"):
        open_source("gs://bucket/model")


def test_an_adapter_in_a_bucket_finds_its_base_there_and_no_local_folder(
    s3: S3Server, model: Path, tmp_path: Path
) -> None:
    q = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{q}.lora_A.weight": np.ones((2, 64), np.float32), f"{q}.lora_B.weight": np.ones((96, 2), np.float32)}
    save_file(factors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": URL}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    s3.upload("adapters", tmp_path)
    checkpoint = open_checkpoint("s3://adapters")
    assert checkpoint.catalogue.base is not None
    assert checkpoint.catalogue.base.name == URL
    assert sum("LoRA" in matrix.encoding for matrix in checkpoint.matrices) == 1
    for elsewhere in (str(model), f"file://{model}", f"local://{model}", f"simplecache::file://{model}"):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": elsewhere}))
        s3.upload("adapters", tmp_path)
        with pytest.raises(TargetError, match="no such file or folder"):
            open_checkpoint("s3://adapters")


def test_a_url_of_a_local_file_is_a_path(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "my model")
    assert open_source(f"file://{str(folder).replace(' ', '%20')}").identity.name == str(folder)
