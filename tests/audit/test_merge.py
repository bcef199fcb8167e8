"""Parts that are joined give the report of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_checkpoint import write_small

from llmtrap.audit import AuditRun, AuditSettings, Journal, Part, RunOptions, journal_for, merge_journals
from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import LlmtrapError, UsageError
from llmtrap.report.coverage import coverage_words
from llmtrap.report.document import Report

CERTIFY = AuditSettings(traps="certify")
Timeless = Callable[[Report], dict[str, Any]]


def run(folder: Path, journal: Path, part: str = "1/1", settings: AuditSettings = CERTIFY) -> Journal:
    """Audit a part of a checkpoint; its journal."""
    checkpoint = open_checkpoint(str(folder))
    kept = journal_for(checkpoint, journal)
    list(AuditRun(checkpoint, settings, RunOptions(workers=1, part=Part.parse(part)), kept).events())
    return kept


def whole(folder: Path, settings: AuditSettings = CERTIFY) -> Report:
    checkpoint = open_checkpoint(str(folder))
    *_, last = AuditRun(checkpoint, settings, RunOptions(workers=1)).events()
    report = getattr(last, "report", None)
    assert isinstance(report, Report)
    return report


@pytest.mark.parametrize("shared", [True, False])
def test_three_parts_make_the_whole(small: Path, tmp_path: Path, timeless: Timeless, shared: bool) -> None:
    journals = [run(small, tmp_path / ("j" if shared else f"j{k}"), f"{k}/3") for k in (1, 2, 3)]
    paths = [journals[0].path] if shared else [journal.path for journal in reversed(journals)]

    merged = merge_journals(paths)
    assert timeless(merged) == timeless(whole(small))
    assert merged.summary.seconds == pytest.approx(sum(m.seconds for m in merged.matrices), abs=1e-3)


def test_a_part_that_is_missing_is_named_matrix_by_matrix(small: Path, tmp_path: Path) -> None:
    journals = [run(small, tmp_path / f"j{k}", f"{k}/3") for k in (1, 3)]
    report = merge_journals([journal.path for journal in journals])

    assert (report.coverage.planned, report.coverage.audited) == (8, 5)
    assert [f.error for f in report.coverage.failed] == ["not measured: part 2/3 is missing"] * 3
    assert coverage_words(report.coverage).startswith("5 of 8 matrices measured, 3 not measured: part 2/3 is missing: ")


def test_the_newest_audit_that_all_journals_share_is_meant(small: Path, tmp_path: Path, timeless: Timeless) -> None:
    newer = replace(CERTIFY, alpha=False)
    for settings in (CERTIFY, newer):
        journals = [run(small, tmp_path / f"j{k}", f"{k}/2", settings) for k in (1, 2)]

    assert timeless(merge_journals([j.path for j in journals])) == timeless(whole(small, newer))


def test_journals_of_different_audits_are_refused(small: Path, tmp_path: Path) -> None:
    other = write_small(tmp_path / "other", seed=1)
    first = run(small, tmp_path / "j1", "1/2")
    for second in (run(other, tmp_path / "j2", "2/2"), run(small, tmp_path / "j3", "2/2", replace(CERTIFY, seed=5))):
        with pytest.raises(UsageError, match=r"not parts of one audit.*same llmtrap version"):
            merge_journals([first.path, second.path])


def test_a_journal_that_is_missing_or_empty_is_refused(small: Path, tmp_path: Path) -> None:
    first = run(small, tmp_path / "j1", "1/2")
    with pytest.raises(LlmtrapError, match=r"gone\.jsonl: no such journal in the folder .*NAME-xxxxxxxx\.jsonl"):
        merge_journals([first.path, tmp_path / "gone.jsonl"])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UsageError, match="not parts of one audit"):
        merge_journals([first.path, tmp_path / "empty.jsonl"])


def test_the_folders_that_journal_took_stand_for_their_journals(
    small: Path, tmp_path: Path, timeless: Timeless
) -> None:
    for k in (1, 2):
        run(small, tmp_path / f"j{k}", f"{k}/2")
    assert timeless(merge_journals([tmp_path / "j1", tmp_path / "j2"])) == timeless(whole(small))
    run(write_small(tmp_path / "other", seed=1), tmp_path / "j2")
    with pytest.raises(UsageError, match="the folder holds 2 journals"):
        merge_journals([tmp_path / "j1", tmp_path / "j2"])
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="the folder holds 0 journals"):
        merge_journals([tmp_path / "none"])
