"""The head of a report and its verdict: what is counted, and in which words it is said."""

from __future__ import annotations

from statistics import fmean

import pytest
from tests.support import documents

from llmtrap.report.document import AlphaSummary, ReferenceUsed, Summary
from llmtrap.report.facts import kind, state, worst
from llmtrap.report.html.payload import CERTIFICATE
from llmtrap.report.summary import FALSE_ALARM_RATE, summarise
from llmtrap.report.verdict import judge
from llmtrap.spectra import certificate
from llmtrap.spectra.traps import FALSE_ALARM


def test_the_report_s_constants_are_those_of_the_measurement() -> None:
    assert FALSE_ALARM_RATE == FALSE_ALARM
    assert CERTIFICATE == {
        "entryRatio": certificate.ENTRY_RATIO_LIMIT,
        "meanRatio": certificate.MEAN_RATIO_LIMIT,
        "kurtosisFactor": certificate.KURTOSIS_FACTOR,
        "columnNorm": certificate.COLUMN_NORM_LIMIT,
    }


def test_the_whole_summary() -> None:
    report = documents.trapped()
    alphas = sorted(m.alpha.value for m in report.matrices if m.alpha and m.alpha.value and m.alpha.reliable)
    assert report.summary == Summary(
        verdict=(
            "layers.0.mlp.down has an entry 196 standard deviations from the mean, 40 times over the 4.9 of its peers; "
            "among published models the most in this role is 2.7 times; none of 6 published models with such a matrix "
            "has as much. 2 of 86 matrices have Correlation Traps: 1 from single entries of unusual size and 1 from "
            "many large entries; 4 of 10 published models have as much. 1 matrix is at the edge: whether a trap shows "
            "depends on the shuffle. α: 1 of 85 matrices with a heavy tail (below 2), 84 typical, 0 with a light tail "
            "(above 6); "
            "1 fit unreliable."
        ),
        level="unusual",
        reference=ReferenceUsed(name="published models", models=13, lineages=10),
        matrices=86,
        with_traps=2,
        traps=3,
        mean_shifts=1,
        certified=79,
        measured=7,
        undecided=0,
        expected_false_traps=86 * 1e-6,
        alpha=AlphaSummary(
            mean=fmean(alphas),
            median=alphas[42],
            over=1,
            well=84,
            under=0,
            unreliable=1,
        ),
        non_finite=0,
        seconds=41.0,
        peak_rss_bytes=1_250_000_000,
    )


def test_a_rule_without_a_false_alarm_rate_claims_none() -> None:
    settings = documents.SETTINGS.model_copy(update={"trap_rule": "weightwatcher"})
    report = documents.report([documents.matrix("a")], settings=settings)
    assert report.summary.expected_false_traps is None
    assert judge(report).certainty.endswith("This rule gives no number of false alarms to expect.")


def test_nothing_measured_has_no_alpha() -> None:
    report = documents.empty()
    assert report.summary.alpha == AlphaSummary(mean=None, median=None, over=0, well=0, under=0, unreliable=0)
    assert summarise((), report.coverage, report.settings, 0.0, 0).matrices == 0


@pytest.mark.parametrize(
    ("name", "level", "word", "complete"),
    [
        ("clean", "usual", "Usual", True),
        ("trapped", "unusual", "Unusual", True),
        ("partial", "partial", "Partly measured", False),
        ("empty", "nothing", "Nothing measured", True),
        ("broken", "broken", "Broken values", True),
    ],
)
def test_levels(name: str, level: str, word: str, complete: bool) -> None:
    answers = judge(getattr(documents, name)())
    assert (answers.level, answers.word, answers.complete) == (level, word, complete)


def test_only_doubtful_cases_are_not_called_traps() -> None:
    edge = documents.matrix("a", method="measured", low=0, high=1)
    small = documents.matrix("b", method="measured", shape=(10, 300), causes=[("entry", 2.0)])
    shift = documents.matrix("c", method="measured", causes=[("mean_shift", 3.0)])
    assert [state(matrix) for matrix in (edge, small, shift)] == ["edge", "unreliable", "mean_shift"]
    assert judge(documents.report([edge])).level == "usual"
    assert judge(documents.report([small])).level == "usual"
    assert judge(documents.report([shift])).level == "usual"
    assert documents.report([edge, small, shift]).summary.traps == 0


def test_undecided_is_never_called_clean() -> None:
    answers = judge(documents.report([documents.matrix("a", method="undecided")]))
    assert answers.level == "undecided"
    assert "No Correlation Traps" not in answers.headline


def test_worst_first() -> None:
    order = [matrix.id for matrix in worst(documents.trapped().matrices, 5)]
    assert order == [
        "layers.0.mlp.down",
        "layers.3.attention.k",
        "layers.11.attention.v",
        "router",
        "layers.8.attention.o",
    ]
    assert worst(documents.broken().matrices, 1)[0].non_finite is not None


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("layers.12.attention.q", "attention.q"),
        ("layers.12.experts.7.gate_up", "experts.gate_up"),
        ("embedding", "embedding"),
        ("encoder.layers.3.fc1", "encoder.layers.fc1"),
        ("12", "q"),
    ],
)
def test_kinds_leave_the_numbers_out(identity: str, expected: str) -> None:
    assert kind(documents.matrix(identity, role="q")) == expected
