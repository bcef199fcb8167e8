"""Crafted checkpoints through the whole command: time, memory, exit code, what it shows and what it touches."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.prepared import begin
from tests.support.processes import of_session
from tests.support.raw_safetensors import header, sparse, write

# CPU seconds, since the machine may be busy with other things; nothing may wait either.
CPU_SECONDS = 10.0
WAIT_SECONDS = 300.0
MEMORY = 500 << 20
MODEL = "model.safetensors"
INDEX = f"{MODEL}.index.json"
EMPTY = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
ONE = {"a.weight": np.ones((3, 2), np.float32)}


def text_header(path: Path, character: str, size: int) -> None:
    """A header of `size` bytes, nearly all of them metadata; the file is otherwise sound."""
    fixed = f'{{"__metadata__":{{"a":"{character}"}}}}'.encode()
    write(path, fixed.replace(b'"}', b"x" * (size - len(fixed)) + b'"}', 1), 0)


def hundred_megabytes(folder: Path) -> None:
    text_header(folder / MODEL, "x", 100_000_000)


def wide_characters(folder: Path) -> None:
    text_header(folder / MODEL, "\U0001f600", 100_000_000)


def eight_large_headers(folder: Path) -> None:
    for number in range(8):
        text_header(folder / f"{number}.safetensors", "x", 100_000_000)


def millions_of_lists(folder: Path) -> None:
    write(folder / MODEL, b'{"a":[' + b",".join([b"[]"] * 20_000_000) + b"]}", 0)


def nested_lists(folder: Path) -> None:
    write(folder / MODEL, b'{"a":' + b"[" * 90_000_000, 0)


def a_million_empty_tensors(folder: Path) -> None:
    one = json.dumps(EMPTY).encode()
    write(folder / MODEL, b"{" + b",".join(b'"%d":%b' % (k, one) for k in range(1_000_000)) + b"}", 0)


def empty_tensors_up_to_the_limit(folder: Path) -> None:
    for number in range(2):
        write(folder / f"{number}.safetensors", json.dumps({f"{number}.{k}": EMPTY for k in range(81_000)}).encode(), 0)


def a_stack_of_thirty_million_experts(folder: Path, side: int = 8) -> None:
    sparse(folder / MODEL, {"model.layers.0.mlp.experts.down_proj": ("F8_E4M3", (30_000_000, side, side))})
    (folder / "config.json").write_text('{"model_type": "gpt_oss"}')


def thirty_million_experts_of_one_number(folder: Path) -> None:
    a_stack_of_thirty_million_experts(folder, side=1)


def thirty_million_experts_by_configuration(folder: Path) -> None:
    sparse(folder / MODEL, {"transformer.blocks.0.ffn.experts.mlp.w1": ("F8_E4M3", (30_000_000, 1))})
    config = {"model_type": "dbrx", "ffn_config": {"moe_num_experts": 30_000_000}}
    (folder / "config.json").write_text(json.dumps(config))


def a_name_of_100_megabytes(folder: Path) -> None:
    name = b"layers.1." * 11_000_000
    write(folder / MODEL, b'{"' + name + b'":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}', 4)


def a_shard_name_of_80_megabytes(folder: Path) -> None:
    save_file(ONE, folder / MODEL)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a.weight": "1a" * 40_000_000}}))


def a_shard_name_of_many_folders(folder: Path) -> None:
    save_file(ONE, folder / MODEL)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a.weight": "a/" * 40_000_000}}))


def a_configuration_of_a_gigabyte(folder: Path) -> None:
    save_file(ONE, folder / MODEL)
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 30)


def a_configuration_of_millions_of_lists(folder: Path) -> None:
    save_file(ONE, folder / MODEL)
    (folder / "config.json").write_bytes(b'{"a":[' + b",".join([b"[]"] * 5_000_000) + b"]}")


def a_configuration_of_a_million_keys(folder: Path) -> None:
    save_file(ONE, folder / MODEL)
    (folder / "config.json").write_text("{" + ",".join(f'"{k:x}":""' for k in range(1_400_000)) + "}")


def an_index_of_a_million_shards(folder: Path) -> None:
    names = ",".join(f'"t{k}":"s{k}.safetensors"' for k in range(1_000_000))
    (folder / INDEX).write_text('{"weight_map":{' + names + "}}")


def links_in_a_circle(folder: Path) -> None:
    (folder / "one.safetensors").symlink_to("two.safetensors")
    (folder / "two.safetensors").symlink_to("one.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a.weight": "one.safetensors"}}))


def an_index_that_names_another(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a.weight": "b.safetensors.index.json"}}))
    (folder / "b.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": INDEX}}))


def a_device_in_the_weights_place(folder: Path) -> None:
    (folder / MODEL).symlink_to("/dev/zero")


def a_shard_out_of_the_folder(folder: Path) -> None:
    save_file(ONE, folder.parent / "outside.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a.weight": "../outside.safetensors"}}))


def scales_that_do_not_fit(folder: Path) -> None:
    tensors = {"a.weight": ("F8_E4M3", (256, 256)), "a.weight_scale_inv": ("F32", (7, 9))}
    sparse(folder / MODEL, tensors)  # type: ignore[arg-type]


def adapter_of(folder: Path, **changes: object) -> None:
    factors = {
        "base_model.model.q.lora_A.weight": ("F32", (8, 64)),
        "base_model.model.q.lora_B.weight": ("F32", (64, 8)),
    }
    sparse(folder / "adapter_model.safetensors", factors)  # type: ignore[arg-type]
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "base_model_name_or_path": str(folder)}
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))


def a_rank_that_lies(folder: Path) -> None:
    adapter_of(folder, r=4)


def a_pattern_without_an_end(folder: Path) -> None:
    adapter_of(folder, alpha_pattern={"a?" * 60 + "q?" * 60 + "b": 1})


def a_scale_of_400_digits(folder: Path) -> None:
    adapter_of(folder, lora_alpha=10**400)


def offsets_that_overlap(folder: Path) -> None:
    fields = header({"a.weight": ("F32", (2, 3)), "b.weight": ("F32", (2, 3))})
    fields["b.weight"]["data_offsets"] = [12, 36]
    write(folder / MODEL, fields, 48)


REFUSED = [
    wide_characters, millions_of_lists, nested_lists, a_million_empty_tensors, empty_tensors_up_to_the_limit,
    a_stack_of_thirty_million_experts, thirty_million_experts_by_configuration, a_name_of_100_megabytes,
    a_shard_name_of_80_megabytes, a_shard_name_of_many_folders, a_configuration_of_a_gigabyte,
    a_configuration_of_millions_of_lists, a_configuration_of_a_million_keys, an_index_of_a_million_shards,
    links_in_a_circle, an_index_that_names_another,
    a_device_in_the_weights_place, a_shard_out_of_the_folder, scales_that_do_not_fit, a_rank_that_lies,
    a_pattern_without_an_end, a_scale_of_400_digits,
    offsets_that_overlap,
]  # fmt: skip
NOTHING_TO_MEASURE = [
    hundred_megabytes, thirty_million_experts_of_one_number,
    pytest.param(eight_large_headers, marks=pytest.mark.thorough),
]  # fmt: skip


def high_water(process: int) -> int:
    """The most memory a process has held, in bytes; 0 once it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


class Audited:
    """One run of `llmtrap audit` on a crafted folder, and what it cost."""

    def __init__(self, place: Path):
        written = place / "written"
        command = [
            "audit", place / "model", "--workers", "1", "--traps", "certify",
            "--json", written / "report.json", "--journal", written / "journal",
        ]  # fmt: skip
        env = {"HOME": str(place), "TMPDIR": str(written), "XDG_CACHE_HOME": str(place / "cache")}
        with (place / "shown").open("wb") as shown:
            running = begin(*command, cwd=place, env=env, stdout=shown, stderr=shown)
            end, self.memory = time.monotonic() + WAIT_SECONDS, 0
            while True:
                # Not ru_maxrss: that of a child begins with what its parent holds
                self.memory = max(self.memory, *(high_water(one) for one in (running.pid, *of_session(running.pid))))
                ended = running.ended(0.02)
                if ended is not None or time.monotonic() > end:
                    break
        self.finished = ended is not None
        if ended is None:
            os.kill(running.pid, signal.SIGKILL)
            ended = running.ended()
        assert ended is not None
        self.code, self.seconds = ended
        self.shown = (place / "shown").read_text(encoding="utf-8")


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Callable[[Callable[[Path], None]], Audited]]:
    def run(craft: Callable[[Path], None]) -> Audited:
        (tmp_path / "model").mkdir()
        (tmp_path / "written").mkdir()
        craft(tmp_path / "model")
        before = touched(tmp_path)
        done = Audited(tmp_path)
        assert touched(tmp_path) == before, "a file was touched outside the journal and the output"
        assert done.finished, f"still running after {WAIT_SECONDS:.0f} s"
        assert done.seconds < CPU_SECONDS
        assert 0 < done.memory < MEMORY
        assert "Traceback" not in done.shown
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", done.shown)
        return done

    yield run
    for file in (tmp_path / "model").iterdir():  # pytest keeps folders of three runs: not these
        file.unlink()


def touched(place: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder but those that may be written, with its size and time."""
    found = {}
    for path in place.rglob("*"):
        if path.name == "shown" or path.is_relative_to(place / "written"):
            continue
        status = path.lstat()
        found[str(path.relative_to(place))] = (status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize("craft", REFUSED, ids=lambda craft: craft.__name__)
def test_it_is_refused_within_the_limits(audited: Callable[..., Audited], craft: Callable[[Path], None]) -> None:
    done = audited(craft)
    assert done.code == 2, done.shown
    assert len(done.shown) < 3000


@pytest.mark.parametrize("craft", NOTHING_TO_MEASURE, ids=lambda craft: craft.__name__)
def test_what_holds_no_matrix_is_read_within_the_limits_and_no_pass(
    audited: Callable[..., Audited], craft: Callable[[Path], None]
) -> None:
    assert audited(craft).code == 3
