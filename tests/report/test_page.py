"""The page's text and its payload: sizes, columns, and what each section says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from tests.support import documents

from llmtrap.report.against import compare
from llmtrap.report.document import Report
from llmtrap.report.html import to_html
from llmtrap.report.html.payload import payload
from llmtrap.report.markdown import to_markdown
from llmtrap.report.text import plain, to_text
from llmtrap.spectra.measured import Histogram


@pytest.mark.parametrize(
    ("make", "matrices", "limit"),
    [
        (documents.trapped, 86, 2_000_000),
        (documents.gpt_oss_20b, 1658, 8_000_000),
        (documents.gpt_oss_120b, 9398, 15_000_000),
    ],
)
def test_sizes(make: Callable[[], Report], matrices: int, limit: int) -> None:
    report = make()
    assert len(report.matrices) == matrices
    assert all(m.spectrum and m.spectrum.histogram and len(m.spectrum.histogram.counts) == 64 for m in report.matrices)
    assert len(to_html(report).encode()) < limit


def test_one_report_gives_one_page() -> None:
    assert to_html(documents.trapped()) == to_html(documents.trapped.__wrapped__())


def test_columns_are_as_long_as_the_report_and_agree_with_it() -> None:
    report = documents.trapped()
    data = payload(report)
    columns = data["columns"]
    lengths = {len(c["index"]) if isinstance(c, dict) else len(c) for c in columns.values()}
    assert lengths == {86}
    assert sorted(data["worst"]) == list(range(86))
    place = next(i for i, m in enumerate(report.matrices) if m.id == "layers.3.attention.k")
    matrix = report.matrices[place]
    assert data["worst"][1] == place
    assert matrix.alpha is not None
    assert matrix.alpha.value is not None
    assert columns["alpha"][place] == pytest.approx(matrix.alpha.value, rel=1e-4)
    assert columns["kind"]["values"][columns["kind"]["index"][place]] == "attention.k"
    assert data["traps"][place][0][3:5] == ["heavy_tail", "many moderately large entries (kurtosis 46.3): a heavy tail"]
    assert data["against"] is None
    json.dumps(data, allow_nan=False)


def test_histograms_keep_their_counts_and_only_uneven_ones_their_edges() -> None:
    uneven = Histogram(edges=(0.0, 1.0, 10.0, 20.0), counts=(1, 2, 3))
    plain = documents.matrix("a")
    assert plain.spectrum is not None
    assert plain.spectrum.histogram is not None
    odd = plain.model_copy(update={"id": "b", "spectrum": plain.spectrum.model_copy(update={"histogram": uneven})})
    bare = plain.model_copy(update={"id": "c", "spectrum": None, "alpha": None, "traps": None})
    esd = payload(documents.report([plain, odd, bare]))["esd"]
    assert esd["counts"] == [list(plain.spectrum.histogram.counts), [1, 2, 3], None]
    assert esd["edges"] == {1: [0, 1, 10, 20]}
    assert esd["first"][0] == pytest.approx(plain.spectrum.histogram.edges[0], rel=1e-6)


def test_against_a_base_the_changes_come_before_the_map() -> None:
    report = documents.trapped()
    text = to_html(report, compare(report, documents.trapped_base()))
    assert text.index("Against the base</h2>") < text.index('id="where-title"')
    section = text[text.index('id="against-title"') : text.index('id="where-title"')]
    assert re.findall(r'data-open="\d+">([^<]+)<', section) == [
        "layers.0.mlp.down",
        "layers.5.mlp.gate",
        "layers.6.mlp.up",
        "layers.11.attention.v",
    ]


def test_nothing_is_left_unsaid() -> None:
    text = to_html(documents.partial())
    for words in (
        "audit incomplete",
        "Could not be measured",
        "the file is cut short: 12 of 4096 bytes",
        "not decided",
    ):
        assert words in text
    text = to_html(documents.trapped())
    for words in (
        "3 × one-dimensional",
        "model.layers.0.input_layernorm.weight",
        "model.safetensors",
        "sha256:5f5f",
        "auto, rule tracy-widom",
        "Trap counts alone prove no harm.",
        "one in 12,000",
    ):
        assert words in text


def test_every_face_says_in_the_same_words_which_model_an_adapter_was_put_on() -> None:
    merged = documents.clean()
    base = "org/base-0.5b@" + "ab" * 20
    report = merged.model_copy(update={"target": merged.target.model_copy(update={"base": base})})
    page = re.search(r'<p class="meta">.*?</p>', to_html(report), re.DOTALL)
    assert page is not None
    assert f"adapter of <code>{base}</code>" in page[0]
    assert f"| **Adapter of** | <code>{base.replace('@', '&#64;')}</code> |" in to_markdown(report)
    assert f"adapter of\t{base}\n" in plain(report)
    assert re.search(r"^adapter of +org/base-0.5b@ab", to_text(report, width=120), re.MULTILINE)
    for output in (to_html, to_markdown, to_text):
        assert "dapter of" not in output(merged)
