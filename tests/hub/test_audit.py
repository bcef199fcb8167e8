"""Audits over the wire: the report of a hub's copy is that of the local one, for as many bytes and no more."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support import hub_faults as faults
from tests.support.audits import timeless
from tests.support.hub import LoopbackHub

from llmtrap.audit import AuditRun, AuditSettings, Finished, Journal, Measured, RunOptions
from llmtrap.checkpoint import open_checkpoint
from llmtrap.demo import write_demo_checkpoint
from llmtrap.errors import AccessError

QUICK = AuditSettings(alpha=False, traps="certify")
SOME = AuditSettings(include=("layers.1.*",))
CERTIFIED = AuditSettings(alpha=False, traps="certify", include=("layers.0.*",))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo: a GPT-OSS in small, MXFP4 experts and all, in four shards."""
    folder = tmp_path_factory.mktemp("hub") / "demo"
    write_demo_checkpoint(folder)
    return folder


def audit(target: str, settings: AuditSettings, journal: Path | None = None) -> dict[str, Any]:
    """The report but for its target and what differs from run to run."""
    checkpoint = open_checkpoint(target)
    run = AuditRun(checkpoint, settings, RunOptions(workers=1), Journal(journal) if journal else None)
    with contextlib.closing(checkpoint.source):
        reports = [event.report for event in run.events() if isinstance(event, Finished)]
    assert reports[0] is not None
    return stripped(reports[0].to_json_dict())


def stripped(report: dict[str, Any]) -> dict[str, Any]:
    del report["target"]
    return timeless(report)


def matrix_bytes(target: str) -> int:
    """Bytes of the tensors that hold the matrices, each counted once."""
    checkpoint = open_checkpoint(target)
    parts = {part.name: part.span.size for matrix in checkpoint.matrices for part in matrix.stored.parts}
    return sum(parts.values())


def header_bytes(folder: Path) -> int:
    """Bytes of all headers, the index and the configuration."""
    heads = [8 + int.from_bytes(path.read_bytes()[:8], "little") for path in folder.glob("*.safetensors")]
    return sum(heads) + sum(path.stat().st_size for path in folder.glob("*.json"))


def test_the_demo_from_a_hub(hub: LoopbackHub, demo: Path, tmp_path: Path) -> None:
    hub.add("org/demo", demo)
    assert audit("org/demo", SOME, tmp_path / "journal.jsonl") == audit(str(demo), SOME)
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"journal.jsonl", "journal.jsonl.lock"}


def test_the_demo_goes_over_the_wire_once(hub: LoopbackHub, demo: Path) -> None:
    hub.add("org/demo", demo)
    assert audit("org/demo", QUICK) == audit(str(demo), QUICK)
    assert hub.bytes_sent <= 1.02 * matrix_bytes(str(demo)) + header_bytes(demo)
    assert hub.count("api") == 1
    assert hub.count("hub", "HEAD") <= 8


def test_minilm_from_a_hub(hub: LoopbackHub, minilm: Path) -> None:
    hub.add("org/minilm", {path.name: path.read_bytes() for path in minilm.iterdir()})
    assert audit("org/minilm", QUICK) == audit(str(minilm), QUICK)
    assert hub.bytes_sent <= 1.02 * matrix_bytes(str(minilm)) + header_bytes(minilm)


def test_20_percent_of_all_requests_fail(hub: LoopbackHub, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMTRAP_HUB_PATIENCE", "60")
    hub.add("org/demo", demo)
    kinds: list[faults.Fault] = [faults.Drop(None), faults.Drop(70_000), faults.Status(503), faults.Status(429)]
    hub.rule = faults.at_random(0.2, kinds, seed=5)
    assert audit("org/demo", CERTIFIED) == audit(str(demo), CERTIFIED)


def test_a_network_that_goes_away_loses_nothing(
    hub: LoopbackHub, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMTRAP_HUB_PATIENCE", "1")
    hub.add("org/demo", demo)
    journal = tmp_path / "journal.jsonl"
    hub.rule = faults.after(12, faults.Drop(None))
    with pytest.raises(AccessError, match="same command again"):
        audit("org/demo", QUICK, journal)
    known = journal_matrices(journal)
    assert known
    hub.rule = faults.never
    assert audit("org/demo", QUICK, journal) == audit(str(demo), QUICK)


def test_stopped_and_started_again_fetches_no_slice_twice(hub: LoopbackHub, demo: Path, tmp_path: Path) -> None:
    hub.add("org/demo", demo)
    journal = tmp_path / "journal.jsonl"
    checkpoint = open_checkpoint("org/demo")
    events = AuditRun(checkpoint, QUICK, RunOptions(workers=1), Journal(journal)).events()
    for event in events:
        if isinstance(event, Measured) and len(journal_matrices(journal)) == 30:
            break
    events.close()
    checkpoint.source.close()
    hub.served.clear()
    assert audit("org/demo", QUICK, journal) == audit(str(demo), QUICK)
    assert fetched_again(hub, demo, journal_matrices(journal)[:30]) == []


@pytest.mark.thorough
def test_killed_and_started_again_fetches_no_slice_twice(hub: LoopbackHub, demo: Path, tmp_path: Path) -> None:
    """The command itself, in worker processes, killed without a chance to say goodbye."""
    hub.add("org/demo", demo)
    hub.rule = faults.withheld(sorted(path.name for path in demo.glob("*.safetensors"))[-1])
    folder, report = tmp_path / "journals", tmp_path / "report.json"
    command = [str(Path(sys.executable).with_name("llmtrap")), "audit", "org/demo", "--no-alpha", "--traps", "certify"]
    command += ["--quiet", "--journal", str(folder), "--json", str(report)]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint}
    first = subprocess.Popen([*command, "--workers", "2"], env=environment, cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 60
    known: list[str] = []
    while len(known) < 10 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        known = [name for path in folder.glob("*.jsonl") for name in journal_matrices(path)]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    known = [name for path in folder.glob("*.jsonl") for name in journal_matrices(path)]
    assert 10 <= len(known) < 80
    time.sleep(0.2)
    hub.served.clear()
    hub.rule = faults.never
    subprocess.run([*command, "--workers", "1"], env=environment, cwd=tmp_path, check=True, timeout=120)
    assert stripped(json.loads(report.read_text())) == audit(str(demo), QUICK)
    assert fetched_again(hub, demo, known) == []


def journal_matrices(path: Path) -> list[str]:
    """Ids of the matrices that a journal holds, in the order of their records."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line.partition(" ")[2]) for line in lines if line.endswith("}")]
    return [record["matrix"]["id"] for record in records if record["kind"] == "matrix"]


def fetched_again(hub: LoopbackHub, demo: Path, known: list[str]) -> list[tuple[str, str]]:
    """Matrices that were known and of which more than a header's surroundings went over the wire: id and file."""
    asked = [(one.asked.file, *one.asked.range) for one in hub.served if one.asked.range and one.asked.where == "cdn"]
    bodies = [(file, start, stop) for file, start, stop in asked if start > 0]
    return [
        (matrix.id, span.file)
        for matrix in open_checkpoint(str(demo)).matrices
        if matrix.id in known
        for span in matrix.spans()
        if any(file == span.file and start < span.stop and span.start < stop for file, start, stop in bodies)
    ]


def test_all_parts_of_a_pipeline_on_a_hub_are_one_audit_and_one_is_its_folder(hub: LoopbackHub, tmp_path: Path) -> None:
    for part in ("text_encoder", "unet"):
        (tmp_path / part).mkdir()
        tensors = {f"{part}.{k}.weight": np.random.default_rng(k).standard_normal((40, 30)) for k in range(2)}
        save_file(tensors, tmp_path / part / "model.safetensors")
    (tmp_path / "model_index.json").write_text("{}")
    hub.add("org/pipe", tmp_path)
    whole, local = audit("org/pipe", QUICK), audit(str(tmp_path), QUICK)
    assert whole["matrices"] == local["matrices"]
    assert len(whole["matrices"]) == 4
    chosen = audit("org/pipe", AuditSettings(alpha=False, traps="certify", include=("unet/*",)))
    assert [matrix["tensor"] for matrix in chosen["matrices"]] == ["unet/unet.0.weight", "unet/unet.1.weight"]
    alone = audit("org/pipe/unet", QUICK)
    assert [matrix["tensor"] for matrix in alone["matrices"]] == ["unet.0.weight", "unet.1.weight"]
