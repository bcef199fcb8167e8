"""A journal that the judged change could have written is not used."""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmtrap.gate import GateOptions, Judgement, LoadedPolicy, Policy, gate
from llmtrap.gate.trust import distrusted

DEFAULT = LoadedPolicy(Policy())
NAME = "layers.0.mlp.up_proj.weight"


def model(folder: Path, entry: float) -> Path:
    folder.mkdir()
    values = np.random.default_rng(0).standard_normal((192, 128)).astype(np.float32)
    values[3, 5] += entry
    save_file({NAME: values, "layers.0.mlp.down_proj.weight": values[:, :96].copy()}, folder / "model.safetensors")
    return folder


def forged(journal: Path) -> None:
    """Give every matrix that the journal holds no trap, and the checksum that fits."""
    for file in journal.glob("*.jsonl"):
        lines = [json.loads(line.split(" ", 1)[1]) for line in file.read_text().splitlines()]
        for record in lines:
            if record["kind"] == "matrix" and (traps := record["matrix"]["traps"]):
                traps |= {"found": [], "count": 0, "centred": 0, "low": 0, "high": 0}
        bodies = [json.dumps(record, separators=(",", ":")) for record in lines]
        file.write_text("".join(f"{zlib.crc32(body.encode()):08x} {body}\n" for body in bodies))


def judged(tmp_path: Path, journal: Path, *, fresh: bool = False) -> Judgement:
    options = GateOptions(workers=1, journal=journal, fresh=fresh)
    return gate(str(tmp_path / "now"), str(tmp_path / "was"), DEFAULT, options).judgement


def test_a_forged_journal_in_a_work_tree_or_beside_the_weights_changes_no_verdict(tmp_path: Path) -> None:
    model(tmp_path / "now", 30.0)
    model(tmp_path / "was", 0.0)
    elsewhere = tmp_path / "cache"
    found = {finding.rule for finding in judged(tmp_path, elsewhere).errors}
    assert "LT001" in found
    forged(elsewhere)
    # The journal of the user's own cache is believed: that is what it is for. The judgement says that it was.
    believed = judged(tmp_path, elsewhere)
    assert "LT001" not in {finding.rule for finding in believed.errors}
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    side = rf"2 matrices of the %s \(measured {time} to {time}\)"
    words = rf"taken from the journal in .*/cache, not measured now: {side % 'target'} and {side % 'base'}; --fresh .*"
    assert re.fullmatch(words, believed.notes[-1])
    anew = judged(tmp_path, elsewhere, fresh=True)
    assert {finding.rule for finding in anew.errors} == found
    assert not [note for note in anew.notes if "journal" in note]
    forged(elsewhere)
    tree = tmp_path / "repository"
    (tree / ".git").mkdir(parents=True)
    for place, why in ((tree / "journal", "git work tree"), (tmp_path / "now" / "journal", "folder of the weights")):
        place.mkdir()
        for file in elsewhere.glob("*.jsonl"):
            (place / file.name).write_bytes(file.read_bytes())
        judgement = judged(tmp_path, place)
        assert {finding.rule for finding in judgement.errors} == found
        assert why in judgement.notes[-1]


def test_a_journal_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distrusted(tmp_path, []) is None
    assert distrusted(tmp_path / "not yet", []) is None
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert distrusted(tmp_path, []) == "it belongs to another user"
