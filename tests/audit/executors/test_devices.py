"""Two CUDA devices, made up: each has a worker, what it computes lies there, and what travels is what is stored."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.packed_checkpoint import write_packed
from tests.support.processes import run

FAKE = Path(__file__).parents[2] / "support" / "fake_cuda"
# Tables of a byte's values, of MXFP4's pairs, of 65536 codes, and the largest grid of scales
TABLES = (1024, 2048, 262144)
GRID = 5 * 4 * 4


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("packed") / "model")


def environment(log: Path, devices: int = 2) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(FAKE), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "FAKE_CUDA_DEVICES": f"{devices}", "FAKE_CUDA_LOG": str(log)}


def audited(folder: Path, place: Path, *options: str, devices: int = 2) -> tuple[dict[str, Any], list[Any]]:
    """The report, and what was copied from the host: process, device, dtype and bytes of each."""
    report, log = place / "report.json", place / "log"
    log.touch()
    done = run(
        "audit", folder, "--json", report, "--journal", place / "journal", "--quiet", *options,
        env=environment(log, devices),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text()), [json.loads(line) for line in log.read_text().splitlines()]


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """Method, count, and the kinds and places of the causes, by matrix."""
    found = {}
    for matrix in report["matrices"]:
        traps = matrix["traps"]
        causes = [tuple(trap["cause"][key] for key in ("kind", "row", "column", "value")) for trap in traps["found"]]
        found[matrix["id"]] = (traps["method"], traps["count"], causes)
    return found


def test_two_devices_are_two_workers_that_get_stored_bytes(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    here, _ = audited(packed, tmp_path / "cpu", "--device", "cpu", "--workers", "1", devices=0)
    there, sent = audited(packed, tmp_path, "--device", "cuda")

    assert there["settings"]["backend"] == "cupy"
    assert numbers(there) == numbers(here)
    assert sum(count for _, count, _ in numbers(here).values()) == 3
    for one, other in zip(there["matrices"], here["matrices"], strict=True):
        assert one["alpha"]["value"] == pytest.approx(other["alpha"]["value"], rel=1e-4)
    # One worker a device, and each keeps to its own
    assert {device for _, device, _, _ in sent} == {0, 1}
    assert len({(process, device) for process, device, _, _ in sent}) == len({process for process, *_ in sent}) == 2
    # Every code travels once
    travelled = Counter[str]()
    for _, _, dtype, size in sent:
        travelled[dtype] += size
    expert, tall, square = 320 * 224 * 17 // 32, 320 * 224, 256 * 256
    assert travelled["uint8"] == 4 * expert + 2 * tall
    assert travelled["int16"] == 2 * (tall + square)
    # No matrix travels as floats but for a shuffle, the few rows of it that hold what may have made a trap, and what
    # moving its far entries changes of its Gram matrix
    shuffled, rows = {4 * square, 4 * tall}, {4 * columns * count for columns in (224, 256) for count in (1, 2, 3)}
    changes = {4 * columns**2 for columns in (224, 256)}
    floats = Counter(size for _, _, dtype, size in sent if dtype == "float32")
    assert set(floats) <= {*TABLES, GRID, *shuffled, *rows, *changes}


def test_a_certified_matrix_never_travels_as_floats(packed: Path, tmp_path: Path) -> None:
    _, sent = audited(packed, tmp_path, "--device", "cuda", "--traps", "certify")

    assert {size for _, _, dtype, size in sent if dtype.startswith("float")} <= {*TABLES, GRID}


def test_one_device_by_its_number(packed: Path, tmp_path: Path) -> None:
    _, sent = audited(packed, tmp_path, "--device", "cuda:1", "--workers", "1", "--traps", "certify")

    assert {device for _, device, _, _ in sent} == {1}
    assert len({process for process, *_ in sent}) == 1


def test_workers_share_a_device_up_to_four(packed: Path, tmp_path: Path) -> None:
    """Eight matrices and eight workers asked for: four have a part in it, each a process of its own."""
    one, sent = audited(packed, tmp_path, "--device", "cuda:1", "--workers", "8", "--traps", "certify")
    (tmp_path / "alone").mkdir()
    alone, _ = audited(packed, tmp_path / "alone", "--device", "cuda:1", "--workers", "1", "--traps", "certify")

    assert {device for _, device, _, _ in sent} == {1}
    assert 2 <= len({process for process, *_ in sent}) <= 4
    assert numbers(one) == numbers(alone)


def test_auto_takes_what_doctor_shows(packed: Path, tmp_path: Path, thorough: bool) -> None:
    for devices, backend in ((2, "cupy"), (0, "numpy"))[: 2 if thorough else 1]:
        shown = run("doctor", env=environment(tmp_path / "unused", devices)).stdout
        assert re.search(rf"CUDA devices +{devices}\b", shown)
        assert re.search(rf"backend +{backend} ", shown)
        place = tmp_path / backend
        place.mkdir()
        report, sent = audited(packed, place, "--traps", "certify", "--workers", "1", devices=devices)
        assert report["settings"]["backend"] == backend
        assert {device for _, device, _, _ in sent} == set(range(devices))


@pytest.mark.parametrize(
    ("devices", "device", "message"),
    [
        (2, "cuda:7", "CUDA device 7 was asked for, but there are 2, numbered from 0"),
        (0, "cuda", "CUDA device 0 was asked for, but none is there"),
    ],
)
def test_a_device_that_is_not_there(packed: Path, tmp_path: Path, devices: int, device: str, message: str) -> None:
    done = run("audit", packed, "--device", device, "--journal", tmp_path, env=environment(tmp_path / "log", devices))

    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "llmtrap doctor" in done.stderr
    assert "Traceback" not in done.stderr
