"""Judgements of synthetic reports, for the tests of rules and outputs."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import documents
from tests.support.gated import Run, checkpoint
from typer.testing import CliRunner, Result

from llmtrap.cli import app
from llmtrap.gate.document import Judgement, OutsideTensor, Side, Update
from llmtrap.gate.judge import judge
from llmtrap.gate.matching import CheckpointContents, Known, match
from llmtrap.gate.policy import Policy
from llmtrap.gate.policy_file import LoadedPolicy
from llmtrap.report.document import Matrix, Report
from llmtrap.report.trap_changes import ValuesAt

TODAY = datetime.date(2026, 3, 1)

JudgeReports = Callable[..., Judgement]


@pytest.fixture
def judged() -> JudgeReports:
    """Judge one report, or list of matrices, against another; keywords are the policy's tables.

    With `weights` they are judged as if the weights had been read: each pair has a harmless ΔW unless `updates` says
    otherwise, and `outside` are the tensors outside the matrices that changed.
    """

    def of(
        now: Report | Sequence[Matrix],
        base: Report | Sequence[Matrix] | None = None,
        *,
        rules: Mapping[str, Any] | None = None,
        ignore: Sequence[Mapping[str, Any]] = (),
        unchanged: Sequence[str] = (),
        updates: Sequence[Update] = (),
        outside: Sequence[OutsideTensor] = (),
        base_at: Mapping[str, ValuesAt] | None = None,
        weights: bool = True,
        adapter_alone: bool = False,
        **gate: Any,
    ) -> Judgement:
        policy = Policy.model_validate({"gate": {"rules": dict(rules or {}), **gate}, "ignore": list(ignore)})
        target = CheckpointContents.of_report(_report(now))
        changes = {name: harmless(name) for name in target.measured} if weights and base is not None else {}
        known = Known(
            unchanged=frozenset(unchanged),
            updates=changes | {update.id: update for update in updates},
            base_at=base_at or {},
        )
        matched = match(target, None if base is None else CheckpointContents.of_report(_report(base)), known)
        matched = replace(matched, outside=tuple(outside) if weights else None, adapter_alone=adapter_alone)
        return judge(matched, LoadedPolicy(policy), TODAY)

    return of


def harmless(name: str) -> Update:
    """What training changes: little, and in all directions."""
    return Update(id=name, spectral_norm=0.1, frobenius_norm=1.0, stable_rank=100.0, relative=0.01)


def _report(of: Report | Sequence[Matrix]) -> Report:
    return of if isinstance(of, Report) else documents.report(of)


@pytest.fixture
def hostile() -> Judgement:
    """A judgement full of names that try to break out of every output."""
    policy = Policy.model_validate(
        {"ignore": [{"rule": "LT011", "match": "*nested*", "reason": documents.HOSTILE_NAMES[0]}]}
    )
    judgement = judge(match(CheckpointContents.of_report(documents.hostile()), None), LoadedPolicy(policy), TODAY)
    evil = documents.HOSTILE_NAMES
    return judgement.model_copy(
        update={
            "target": Side(name=evil[0], kind="hub", revision=evil[6], family=evil[2]),
            "notes": evil,
            "headline": evil[6],
            "updates": tuple(
                Update(id=name, spectral_norm=1.0, frobenius_norm=2.0, stable_rank=4.0, relative=0.1) for name in evil
            ),
        }
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`llmtrap gate` in a folder of its own, with a checkpoint `base` in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    checkpoint(tmp_path / "base")

    def command(*arguments: str, **environment: str) -> Result:
        journal = str(tmp_path / "journal")
        return CliRunner().invoke(app, ["gate", *arguments, "--workers", "1", "--journal", journal], env=environment)

    return command
