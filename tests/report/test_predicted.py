"""A report with predicted traps, from a real audit without α: what every output says of shuffles that were not made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.support import documents
from tests.support.audits import audit, matrices_of, traps_of
from tests.support.planting import write_planted

from llmtrap.report.against import compare
from llmtrap.report.comparison_text import against_words
from llmtrap.report.document import Report
from llmtrap.report.facts import badness, is_at_edge, is_decided, is_notable, state, tally
from llmtrap.report.html import to_html
from llmtrap.report.json import write_json
from llmtrap.report.markdown import to_markdown
from llmtrap.report.read import read_report
from llmtrap.report.schema import json_schema
from llmtrap.report.text import plain, to_text
from llmtrap.report.verdict import judge

ENTRY, MEAN, TWO = "layers.0.mlp.down", "layers.1.mlp.gate", "layers.1.attention.q"


def test_the_audit_predicts_the_entry_and_the_mean_and_shuffles_the_rest(planted: Path) -> None:
    traps = traps_of(audit(planted, alpha=False))
    assert {name: t.method for name, t in traps.items() if t.method != "certified"} == {
        ENTRY: "predicted", MEAN: "predicted", TWO: "measured",
    }  # fmt: skip
    for name in (ENTRY, MEAN):
        it = traps[name]
        assert (it.count, it.low, it.high, it.shuffles, it.shuffled) == (1, 1, 1, 0, None)
        assert (it.top_z, it.top_z_low, it.top_z_high) == (it.found[0].z, None, None)


def test_predicted_traps_are_decided_count_and_are_never_at_the_edge(predicted: Report) -> None:
    matrices = matrices_of(predicted)
    assert [state(matrices[name]) for name in (ENTRY, MEAN)] == ["trapped", "mean_shift"]
    assert [is_notable(matrices[name]) for name in (ENTRY, MEAN)] == [True, False]
    assert [is_decided(matrices[name]) for name in (ENTRY, MEAN)] == [True, True]
    assert [is_at_edge(matrices[name]) for name in (ENTRY, MEAN)] == [False, False]
    assert badness(matrices[TWO]) < badness(matrices[ENTRY]) < badness(matrices[MEAN])
    counts = tally(predicted.matrices)
    assert (counts.decided, counts.certified, counts.measured, counts.predicted) == (8, 5, 1, 2)


def test_predicted_traps_are_no_test_that_chance_could_fail(predicted: Report) -> None:
    summary = predicted.summary
    assert (summary.certified, summary.predicted, summary.measured, summary.undecided) == (5, 2, 1, 0)
    assert summary.expected_false_traps == pytest.approx(6e-6)


CERTAINTY = (
    "5 matrices certified free of traps by the sizes of their entries, 1 measured by shuffling and 2 with predicted "
    "traps, those that every shuffle must show. False alarms to expect by chance, if entries were light-tailed: "
    "0.000006, that is one in 170,000 "
    "such audits."
)


def test_the_verdict_says_how_the_traps_were_decided(predicted: Report) -> None:
    answers = judge(predicted)
    assert answers.certainty == CERTAINTY
    assert answers.lead.startswith("layers.1.attention.q has an entry 87.6 standard deviations from the mean;")
    assert answers.rest.startswith("2 of 8 matrices have Correlation Traps, all from single entries of unusual size;")
    assert (answers.level, answers.complete) == ("unusual", True)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["predicted"], "1 matrix with predicted traps, those that every shuffle must show. "),
        (
            ["predicted", "predicted", "measured"],
            "1 matrix measured by shuffling and 2 with predicted traps, those that every shuffle must show. ",
        ),
        (
            ["certified", "predicted"],
            "1 matrix certified free of traps by the sizes of their entries and 1 with predicted traps, those that "
            "every shuffle must show. ",
        ),
    ],
)
def test_certainty_of_other_mixtures(methods: list[str], words: str) -> None:
    made = [
        documents.matrix(f"m{place}", method=method, causes=[("entry", 9.0)] if method == "predicted" else ())
        for place, method in enumerate(methods)
    ]
    text = judge(documents.report(made)).certainty
    assert text.startswith(words)


def test_proof_alone_leaves_no_false_alarm_to_expect() -> None:
    report = documents.report([documents.matrix("a", method="predicted", causes=[("entry", 9.0)])])
    assert report.summary.expected_false_traps == 0
    assert judge(report).certainty.endswith("show. False alarms to expect by chance, if entries were light-tailed: 0.")


def test_a_predicted_mean_shift_alone_is_decided_and_no_alarm() -> None:
    report = documents.report([documents.matrix("a", method="predicted", causes=[("mean_shift", 9.0)])])
    answers = judge(report)
    assert (answers.level, answers.rest) == ("usual", "No Correlation Traps in 1 matrix.")


@pytest.mark.parametrize("render", [plain, to_markdown])
def test_text_and_markdown_say_it_whole(render: Any, predicted: Report) -> None:
    assert CERTAINTY in render(predicted)
    assert "in which causes are looked for" not in render(predicted)


def test_the_terminal_lists_a_predicted_trap_as_any_other(predicted: Report) -> None:
    lines = [line.split() for line in to_text(predicted).splitlines()]
    assert [ENTRY, "–", "1", "9.28", "entry", "[7,", "11]", "80.7", "s.d."] in lines


def test_the_page_has_a_part_for_it_and_the_method_says_what_it_is(predicted: Report) -> None:
    page = to_html(predicted)
    assert CERTAINTY in page
    assert re.findall(r'<i class="(s-[a-z]+)" style="flex-grow:(\d+)"></i>', page) == [
        ("s-certified", "5"), ("s-measured", "1"), ("s-predicted", "2"),
    ]  # fmt: skip
    assert "<b>2</b> predicted</li>" in page
    method = "Nor is one whose entries alone make traps in every order: those are predicted."
    assert method in page
    assert method not in to_html(documents.trapped())
    assert "</b> predicted</li>" not in to_html(documents.trapped())


def test_a_trap_is_the_same_predicted_and_shuffled(planted: Path, predicted: Report) -> None:
    shuffled = audit(planted)
    assert {t.method for t in traps_of(shuffled).values()} == {"certified", "measured"}
    same = "No trap is new, stronger or gone: all as in the base (8 matrices compared)."
    assert against_words(compare(predicted, shuffled)) == same
    assert against_words(compare(shuffled, predicted)) == same


def test_it_validates_and_comes_back_equal(predicted: Report, tmp_path: Path) -> None:
    write_json(predicted, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    Draft202012Validator(json_schema()).validate(written)
    assert written["summary"]["predicted"] == 2
    assert read_report(tmp_path / "report.json") == predicted


def test_a_report_of_before_there_were_predictions_is_read(tmp_path: Path) -> None:
    older = documents.trapped().to_json_dict()
    del older["summary"]["predicted"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert read_report(tmp_path / "older.json") == documents.trapped()


def test_certifying_alone_predicts_too_and_leaves_the_rest_undecided(planted: Path) -> None:
    report = audit(planted, traps="certify", alpha=False)
    answers = judge(report)
    assert answers.certainty == (
        "5 matrices certified free of traps by the sizes of their entries and 2 with predicted traps, those that every "
        "shuffle must show. False alarms to expect by chance, if entries were light-tailed: 0.000005, "
        "that is one in 200,000 such audits."
    )
    assert "1 of 8 matrices has Correlation Traps, from single entries of unusual size;" in answers.rest
    assert answers.rest.endswith("1 matrix could not be decided without a shuffle: audit with --traps auto.")
    assert not answers.complete


def test_where_only_the_undecided_is_left_the_remedy_decides_it(tmp_path: Path) -> None:
    folder = write_planted(tmp_path / "planted")
    two = {"alpha": False, "include": (TWO,)}
    left = judge(audit(folder, traps="certify", **two))
    assert left.level == "unusual"  # for the entry that is there is rare, whether it makes a trap or not
    assert "1 matrix could not be decided without a shuffle: audit with --traps auto." in left.rest
    assert judge(audit(folder, traps="auto", **two)).certainty.startswith("1 matrix measured by shuffling.")
