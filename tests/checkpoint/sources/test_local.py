"""Local files: what is listed, what is refused, and what is noticed when a file changes under the reader."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.support.small_checkpoint import write_small

from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.sources import ByteRange, LocalSource, open_source
from llmtrap.errors import CheckpointError, TargetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "original").mkdir(parents=True)
    (root / "b.bin").write_bytes(bytes(range(256)))
    (root / "a.bin").write_bytes(b"first")
    (root / "original" / "c.bin").write_bytes(b"nested")
    return root


def test_every_file_is_listed_by_name_with_subfolders(folder: Path) -> None:
    files = LocalSource(folder).files()
    assert [(file.name, file.size) for file in files] == [("a.bin", 5), ("b.bin", 256), ("original/c.bin", 6)]


def test_read_and_open_give_the_bytes_of_the_range(folder: Path) -> None:
    with LocalSource(folder) as source:
        assert source.read(ByteRange("b.bin", 3, 6)).tolist() == [3, 4, 5]
        with source.open(ByteRange("b.bin", 250, 256)) as one, source.open(ByteRange("b.bin", 0, 2)) as other:
            assert (one.tolist(), other.tolist()) == ([250, 251, 252, 253, 254, 255], [0, 1])
        assert source.read(ByteRange("b.bin", 7, 7)).size == 0


def test_one_file_comes_with_the_configuration_beside_it(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    source = LocalSource(folder / "b.bin")
    assert [file.name for file in source.files()] == ["b.bin", "config.json"]
    assert source.identity.kind == "file"


@pytest.mark.parametrize("span", [ByteRange("a.bin", 0, 6), ByteRange("a.bin", -1, 2), ByteRange("a.bin", 3, 2)])
def test_a_range_outside_the_file_is_an_error_that_names_it(folder: Path, span: ByteRange) -> None:
    with pytest.raises(CheckpointError, match=r"a\.bin: bytes .* and the file has 5"):
        LocalSource(folder).read(span)


def test_a_file_that_was_never_listed_is_not_opened(folder: Path) -> None:
    source = LocalSource(folder)
    (folder / "late.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no such file in the checkpoint"):
        source.read(ByteRange("../model/late.bin", 0, 1))


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(folder: Path) -> None:
    source = LocalSource(folder)
    source.read(ByteRange("b.bin", 0, 1))
    os.truncate(folder / "b.bin", 100)
    with pytest.raises(CheckpointError, match=r"ended at byte 100|changed while it was audited"):
        source.read(ByteRange("b.bin", 0, 256))


@pytest.mark.parametrize("opened_before", [True, False])
def test_a_file_that_is_written_again_is_noticed(folder: Path, opened_before: bool) -> None:
    source = LocalSource(folder)
    if opened_before:
        source.read(ByteRange("b.bin", 0, 1))
    (folder / "b.bin").write_bytes(bytes(256))
    os.utime(folder / "b.bin", ns=(1, 1))
    with pytest.raises(CheckpointError, match="changed while it was audited"):
        source.read(ByteRange("b.bin", 0, 256))


def test_a_copy_in_another_process_keeps_the_listing_and_notices_a_change(folder: Path) -> None:
    source = LocalSource(folder)
    source.read(ByteRange("b.bin", 0, 1))
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert copy.files() == source.files()
    assert copy.read(ByteRange("b.bin", 1, 3)).tolist() == [1, 2]
    other = pickle.loads(pickle.dumps(source))  # noqa: S301
    (folder / "b.bin").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="changed"):
        other.read(ByteRange("b.bin", 1, 3))


def test_threads_share_a_source(folder: Path) -> None:
    (folder / "large.bin").write_bytes(np.arange(1 << 16, dtype="<u4").tobytes())
    source = LocalSource(folder)

    def total(k: int) -> int:
        with source.open(ByteRange("large.bin", k * 4096, (k + 1) * 4096)) as data:
            return int(data.view("<u4").sum(dtype=np.int64))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(total, range(64))) == (1 << 16) * ((1 << 16) - 1) // 2


def test_links_inside_the_folder_are_followed_and_others_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"outside")
    (folder / "inside.bin").symlink_to("original/c.bin")
    (folder / "outside.bin").symlink_to("../secret")
    (folder / "absolute.bin").symlink_to(tmp_path / "secret")
    (folder / "broken.bin").symlink_to("nowhere")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe.bin")
    source = LocalSource(folder)
    assert [file.name for file in source.files()] == ["a.bin", "b.bin", "inside.bin", "original/c.bin"]
    assert source.refused == {
        "absolute.bin": f"a link that leads out of the checkpoint's folder, to {tmp_path / 'secret'}",
        "broken.bin": "a broken link",
        "loop": "a link to a folder",
        "outside.bin": f"a link that leads out of the checkpoint's folder, to {tmp_path / 'secret'}",
        "pipe.bin": "not a regular file",
    }


def test_the_hub_caches_own_links_are_followed(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    (snapshot / "original").mkdir(parents=True)
    (repository / "blobs" / "f00").write_bytes(b"weights")
    (repository / "refs").write_bytes(b"not a blob")
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00")
    (snapshot / "original" / "model.safetensors").symlink_to("../../../blobs/f00")
    (snapshot / "refs").symlink_to("../../refs")
    source = LocalSource(snapshot)
    assert [file.name for file in source.files()] == ["model.safetensors", "original/model.safetensors"]
    assert source.refused == {"refs": f"a link that leads out of the checkpoint's folder, to {repository / 'refs'}"}
    deeper = LocalSource(snapshot / "original")
    assert deeper.read(ByteRange("model.safetensors", 0, 7)).tobytes() == b"weights"
    assert source.read(ByteRange("model.safetensors", 0, 7)).tobytes() == b"weights"


def test_the_remedy_for_a_folder_of_the_hubs_cache_can_be_followed(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    part = repository / "snapshots" / "abc" / "part"
    part.mkdir(parents=True)
    for file in write_small(repository / "blobs", layers=1).iterdir():
        (part / file.name).symlink_to(f"../../../blobs/{file.name}")
    with pytest.raises(TargetError) as refused:
        open_checkpoint(str(part.parent))
    assert refused.value.remedy is not None
    named = refused.value.remedy.partition("Give that folder as the target: ")[2]
    assert open_checkpoint(named).matrices


def test_the_buffers_kept_for_reuse_stay_few_and_small(folder: Path) -> None:
    (folder / "large.bin").write_bytes(bytes(1 << 20))
    source = LocalSource(folder)
    for size in range(1, 1 << 20, 1 << 14):
        with source.open(ByteRange("large.bin", 0, size)):
            pass
    assert sum(buffer.nbytes for buffer in source._buffers) <= 1 << 20


@pytest.mark.parametrize("target", ["nowhere", "./nowhere/at-all", "/nowhere/model", "a b/c", ""])
def test_a_target_that_is_neither_path_nor_repository_is_refused(target: str) -> None:
    with pytest.raises(TargetError, match=r"no such file or folder\. Give a folder"):
        open_source(target)


def test_a_path_that_exists_wins_over_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_source("org/name"), LocalSource)


def test_a_device_is_no_target() -> None:
    with pytest.raises(TargetError, match="not a regular file or folder"):
        LocalSource("/dev/null")
