"""Coverage: every parameter in one class, and no clean word over a checkpoint that was measured in part."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import documents

from llmtrap.report.coverage import (
    PARTLY_ABOVE,
    count_coverage,
    coverage_words,
    is_incomplete,
    is_partial,
    parameters,
    percent,
)
from llmtrap.report.document import Amount, Coverage, FailedMatrix, LeftOut, Report, SkippedTensor
from llmtrap.report.html import to_html
from llmtrap.report.markdown import to_markdown
from llmtrap.report.text import plain
from llmtrap.report.verdict import judge

KINDS = get_args(LeftOut)
MEASURED = Amount(count=10, parameters=9_800, bytes=19_600)


def left_out(kind: LeftOut, held: int, name: str = "x") -> SkippedTensor:
    return SkippedTensor(tensor=name, reason="because", kind=kind, parameters=held, bytes=2 * held)


def coverage(*skipped: SkippedTensor, failed: tuple[FailedMatrix, ...] = ()) -> Coverage:
    return count_coverage(10 + len(failed), MEASURED, skipped, failed)


@given(
    st.lists(
        st.builds(
            SkippedTensor,
            tensor=st.just("x"),
            reason=st.just("r"),
            kind=st.sampled_from(KINDS),
            parameters=st.integers(0, 10**12),
            bytes=st.integers(0, 10**12),
        ),
        max_size=12,
    )
)
def test_every_byte_is_in_one_class_and_the_share_is_of_parameters(skipped: list[SkippedTensor]) -> None:
    found = coverage(*skipped)
    assert found.counts is not None
    assert sum(getattr(found.counts, kind).bytes for kind in KINDS) == sum(item.bytes for item in skipped)
    assert sum(getattr(found.counts, kind).count for kind in KINDS) == len(skipped)
    held = sum(item.parameters for item in skipped if item.kind not in ("table", "buffer", "file_not_read"))
    assert parameters(found.counts) == 9_800 + held
    assert found.share == pytest.approx(9_800 / (9_800 + held))


@pytest.mark.parametrize(("kind", "incomplete"), [("unmeasured", True), ("on_request", False)])
def test_the_threshold_is_two_per_cent_of_all_parameters(kind: LeftOut, incomplete: bool) -> None:
    assert PARTLY_ABOVE == 0.02
    at, beyond = coverage(left_out(kind, 200)), coverage(left_out(kind, 201))
    assert (is_partial(at), is_incomplete(at)) == (False, False)
    assert (is_partial(beyond), is_incomplete(beyond)) == (True, incomplete)


@pytest.mark.parametrize(
    ("kind", "partial", "incomplete"),
    [
        ("one_dimensional", False, False),
        ("table", False, False),
        ("buffer", False, False),
        ("file_not_read", False, False),
        ("on_request", True, False),
        ("unreadable", True, True),
        ("unmeasured", True, True),
    ],
)
def test_what_may_be_left_out_and_still_called_clean(kind: LeftOut, partial: bool, incomplete: bool) -> None:
    found = coverage(left_out(kind, 5_000))
    assert (is_partial(found), is_incomplete(found)) == (partial, incomplete)


def test_a_failed_matrix_and_an_empty_weight_are_never_clean_however_small() -> None:
    failed = FailedMatrix(id="a", tensor="a", error="cut short", parameters=1, bytes=2)
    assert is_incomplete(coverage(failed=(failed,)))
    assert is_incomplete(coverage(left_out("unmeasured", 0)))
    assert is_incomplete(coverage(left_out("unreadable", 1)))


def partly(*skipped: SkippedTensor) -> Report:
    return documents.report([documents.matrix("layers.0.mlp.up")], skipped=skipped)


def test_every_face_says_partly_measured_with_the_share_and_the_names() -> None:
    report = partly(left_out("unmeasured", 1_000_000, "model.vision.conv.weight"))
    assert report.summary.level == "partly_measured"
    assert report.coverage.share == pytest.approx(512 * 384 / (512 * 384 + 1_000_000))
    page = to_html(report)
    for text, said in (
        (page, documents.verdict_section(page)),
        *((it, it) for it in (plain(report), to_markdown(report))),
    ):
        assert "Partly measured" in said
        assert "Usual" not in said
        assert "16 % of 1,196,608 parameters" in text
        assert "model.vision.conv.weight" in text


def test_a_part_that_was_asked_for_is_not_called_clean_either() -> None:
    answers = judge(partly(left_out("on_request", 1_000_000)))
    assert (answers.word, answers.complete, answers.unmeasured) == ("Partly measured", True, ())


def test_traps_that_are_not_rare_are_told_of_a_part() -> None:
    matrix = documents.matrix("a", method="measured", causes=[("entry", 3.0)])
    report = documents.report([matrix], skipped=[left_out("unmeasured", 10**9)])
    assert (judge(report).word, report.summary.level) == ("Partly measured", "partly_measured")
    assert "1 of 1 matrix has Correlation Traps" in report.summary.verdict
    assert "Too little was measured to call the rest usual." in report.summary.verdict


def test_the_words_name_every_class() -> None:
    skipped = [left_out(kind, 100) for kind in KINDS]
    assert coverage_words(coverage(*skipped)) == (
        "10 of 10 matrices measured: 96.1 % of 10,200 parameters. Left out: 1 tensor not measured (0.98 %); "
        "1 tensor that could not be measured (0.98 %); 1 tensor left out on request (0.98 %); "
        "1 table of positions, learned tokens or decays (100 numbers); 1 tensor one-dimensional (0.98 %); "
        "1 tensor of buffers (no parameters), 200 B; 1 file not looked at, 200 B."
    )


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 10**9, "under 0.01 %"),
        (10**9 - 1, 10**9, "over 99.99 %"),
        (9_985, 10_000, "99.85 %"),
        (50, 100, "50 %"),
        (95, 1000, "9.5 %"),
    ],
)
def test_a_share_never_says_all_or_none_of_what_is_not(part: int, whole: int, words: str) -> None:
    assert percent(part, whole) == words
