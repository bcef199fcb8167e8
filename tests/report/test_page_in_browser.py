"""The page in headless Chromium: it draws, filters, sorts, copies, and is walked by keyboard alone."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from tests.support import documents

from llmtrap.report.against import compare
from llmtrap.report.document import Report
from llmtrap.report.rarity.measures import MEASURES
from llmtrap.spectra.measured import NoiseRange

pytestmark = pytest.mark.browser

ROW = "#table-body tr[data-place]"


def cells(page: Any, column: str) -> list[str]:
    """What the rows in view show in one column."""
    place = page.locator(f"#table-head th[data-key={column}]").evaluate("cell => cell.cellIndex")
    return page.locator(f"{ROW} td:nth-child({place + 1})").all_inner_texts()


def test_it_opens_from_disk_and_draws_everything(open_report: Any) -> None:
    page = open_report(documents.trapped())
    assert page.locator("#map td[data-row]").count() == 84
    assert page.locator("#map-outside td[data-row]").count() == 2
    assert page.locator("#map-value button[aria-pressed=true]").inner_text() == "α against its role"
    page.locator("#map-value button[data-key=traps]").click()
    assert page.locator("#map td.c-trap-2").inner_text() == "2"
    assert page.locator("#map-legend li").count() >= 4

    page.get_by_role("link", name="layers.0.mlp.down").first.click()
    page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
    assert page.locator("#plot-esd .scatterlayer .trace").count() == 2
    assert page.locator("#plot-shuffled .scatterlayer .point").count() == 2
    assert "as stored" in page.locator("#plot-shuffled .legend").text_content()
    assert page.locator("#matrix-name").inner_text() == "layers.0.mlp.down"
    causes = page.locator("#matrix-why .trap-list strong").all_inner_texts()
    assert len(causes) == 2
    assert all("one entry of" in cause.lower() for cause in causes)


def test_a_predicted_trap_claims_no_shuffle(open_report: Any, predicted: Report) -> None:
    page = open_report(predicted)
    assert dict(zip(cells(page, "id"), cells(page, "method"), strict=True)) == {
        **dict.fromkeys((matrix.id for matrix in predicted.matrices), "certified"),
        "layers.0.mlp.down": "predicted", "layers.1.mlp.gate": "predicted", "layers.1.attention.q": "shuffled",
    }  # fmt: skip
    page.get_by_role("link", name="layers.0.mlp.down").first.click()
    page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
    assert page.locator("#plot-shuffled .legendtext").all_text_contents() == [
        "by chance (Marchenko–Pastur)", "predicted trap: entry",
    ]  # fmt: skip
    assert page.locator("#plot-shuffled-words").inner_text() == (
        "The curve is what chance gives; no shuffle was made. The shaded band ends at the edge: there the greatest "
        "eigenvalue lies when chance alone is at work. Beyond the dashed edge only one matrix in a million comes by "
        "chance: there every shuffle would show the marked trap."
    )
    assert page.locator("#matrix-why .trap-list + p").inner_text() == (
        "No shuffle was needed: the entries alone make this trap in every order. Its numbers are predicted."
    )
    top = page.locator("#matrix-numbers dt", has_text="Top of any shuffle").locator("+ dd")
    assert top.inner_text() == "z = 424\npredicted; no shuffle was made"
    text = page.locator("#matrix").inner_text()
    assert "first shuffle" not in text
    assert "Top of the shuffle" not in text
    # Where a shuffle was made the page says so.
    page.click("#matrix-close")
    page.get_by_role("link", name="layers.1.attention.q").first.click()
    assert "Top of the shuffle" in page.locator("#matrix-numbers").inner_text()
    assert page.locator("#matrix-why", has_text="No shuffle was needed").count() == 0
    with page.expect_download() as saved:
        page.locator("#csv-save").evaluate("button => button.click()")
    with saved.value.path().open(newline="", encoding="utf-8") as file:
        assert [row["method"] for row in csv.DictReader(file)].count("predicted") == 2


def test_of_more_traps_than_are_described_it_says_how_many(open_report: Any) -> None:
    many = {"count": 40, "centred": 40, "low": 38, "high": 41}
    (trapped,) = [matrix for matrix in documents.trapped().matrices if matrix.id == "layers.0.mlp.down"]
    assert trapped.traps is not None
    trapped = trapped.model_copy(update={"traps": trapped.traps.model_copy(update=many)})
    page = open_report(documents.report([trapped]), fragment="#matrix=layers.0.mlp.down")
    page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
    assert page.locator("#matrix-why h3").first.inner_text() == "The 2 strongest traps, and their causes"
    assert page.locator("#matrix-why .trap-list + p").inner_text() == (
        "These are of the first shuffle. In the median of 5 shuffles 40 are centred and 0 from the mean."
    )
    words = page.locator("#plot-shuffled-words").inner_text()
    assert words.endswith("there stand at least 38 traps, of which the 2 strongest are marked.")


def test_every_map_value_paints_signs_as_well_as_colours(open_report: Any) -> None:
    report = documents.trapped()
    page = open_report(report, compare(report, documents.trapped_base()))
    buttons = page.locator("#map-value button")
    assert buttons.all_inner_texts() == [
        "New traps", "Shift of α", "Traps", "Strongest trap", "α against its role", "α", "Stable rank",
    ]  # fmt: skip
    for button in buttons.all():
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert all(page.locator("#map td[data-row]").all_inner_texts())
    page.get_by_role("button", name="New traps", exact=True).first.click()
    assert page.locator("#map td.c-change-new").all_inner_texts() == ["+", "+"]
    assert page.locator("#map td.c-change-gone").all_inner_texts() == ["−"]


def test_against_a_base_new_and_gone_traps_come_first(open_report: Any) -> None:
    report = documents.trapped()
    page = open_report(report, compare(report, documents.trapped_base()))
    assert "New traps in 2 matrices and traps gone in 1" in page.locator(".ruling").inner_text()
    assert page.locator("#map-value button[aria-pressed=true]").inner_text() == "New traps"
    assert list(zip(cells(page, "id"), cells(page, "change"), strict=True))[:5] == [
        ("layers.0.mlp.down", "new trap"),
        ("layers.5.mlp.gate", "new trap"),
        ("layers.6.mlp.up", "trap gone"),
        ("layers.3.attention.k", "as in the base"),
        ("layers.11.attention.v", "traps as in the base, α fell below 2"),
    ]
    page.locator("#against a", has_text="layers.6.mlp.up").click()
    assert page.locator("#matrix-name").inner_text() == "layers.6.mlp.up"
    assert page.locator("#matrix-numbers dd").first.inner_text().startswith("trap gone\ntraps 1 → 0 (entry at row")


def test_where_nothing_is_new_the_page_says_so_and_maps_the_traps(open_report: Any) -> None:
    report = documents.trapped()
    page = open_report(report, compare(report, report))
    assert "No trap is new, stronger or gone" in page.locator(".ruling").inner_text()
    assert page.locator("#map-value button[aria-pressed=true]").inner_text() == "α against its role"
    page.get_by_role("button", name="Shift of α").click()
    assert set(page.locator("#map td[data-row]").all_inner_texts()) == {"0.0"}


def test_filtering_and_choosing(open_report: Any) -> None:
    page = open_report(documents.trapped())
    assert page.locator("#table-count").inner_text() == "86 matrices"
    page.fill("#table-filter", "mlp.down layers.1")
    assert sorted(cells(page, "id")) == ["layers.1.mlp.down", "layers.10.mlp.down", "layers.11.mlp.down"]
    assert page.locator("#table-count").inner_text() == "3 of 86 matrices"
    page.fill("#table-filter", "")
    page.get_by_role("button", name="With traps").click()
    assert cells(page, "id") == ["layers.0.mlp.down", "layers.3.attention.k"]
    page.get_by_role("button", name="In doubt").click()
    assert cells(page, "id") == ["router", "layers.8.attention.o"]
    page.fill("#table-filter", "nothing is called so")
    assert page.locator("#table-body .none").inner_text() == "No matrix fits this filter."


def test_a_glob_fits_whole_names_and_stays_in_the_address(open_report: Any) -> None:
    page = open_report(documents.trapped())
    page.locator("#table-filter").fill("layers.1*.mlp.d*")
    assert sorted(cells(page, "id")) == ["layers.1.mlp.down", "layers.10.mlp.down", "layers.11.mlp.down"]
    assert page.url.endswith("#filter=layers.1*.mlp.d*")
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert page.locator("#table-filter").input_value() == "layers.1*.mlp.d*"
    assert len(cells(page, "id")) == 3
    page.locator("#table-filter").fill("")
    assert "#" not in page.url


def test_alpha_is_drawn_by_depth_for_each_role_and_opens_its_matrix(open_report: Any) -> None:
    page = open_report(documents.trapped())
    page.locator("#depth").scroll_into_view_if_needed()
    page.wait_for_selector(".depth-plot .point")
    assert page.locator("#depth figcaption").all_inner_texts() == [
        "attention.q", "attention.k", "attention.v", "attention.o", "mlp.gate", "mlp.up", "mlp.down",
    ]  # fmt: skip
    # No family of the reference but one has a gate; the others have a band and its middle.
    shapes = [
        chart.locator(".shapelayer path, .shape-group path").count() for chart in page.locator(".depth-plot").all()
    ]
    assert shapes[4] == 0
    assert all(count >= 1 for place, count in enumerate(shapes) if place != 4)


def test_every_measure_has_a_word_on_it(open_report: Any) -> None:
    page = open_report(documents.trapped())
    titled = page.locator("#table-head button[title]").all_inner_texts()
    assert {"α", "Traps", "× edge", "Stable rank", "Kurtosis", "Max, s.d."} <= set(titled)
    page.get_by_role("link", name="layers.0.mlp.down").first.click()
    page.wait_for_selector("#matrix[open]")
    without = page.locator("#matrix-numbers h3:has-text('In numbers') + dl dt:not([title])").all_inner_texts()
    assert without == []


def test_sorting_by_numbers_by_names_and_back(open_report: Any) -> None:
    page = open_report(documents.trapped())
    head = page.locator("#table-head th[data-key=alpha]")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    shown = [float(text.split()[0]) for text in cells(page, "alpha")]
    assert shown == sorted(shown, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert cells(page, "alpha")[0] == "1.72 <2"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert cells(page, "id")[0] == "layers.0.mlp.down"
    page.locator("#table-head th[data-key=id] button").click()
    # Numbers in names count as numbers: layer 2 before layer 10.
    assert cells(page, "id")[:3] == ["embedding", "layers.0.attention.k", "layers.0.attention.o"]


def test_the_table_by_keyboard(open_report: Any) -> None:
    page = open_report(documents.trapped())
    page.locator(f'{ROW}[tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#matrix-name").inner_text() == "layers.3.attention.k"
    assert page.evaluate("document.activeElement.id") == "matrix-name"
    page.keyboard.press("ArrowRight")
    assert page.locator("#matrix-name").inner_text() == "layers.11.attention.v"
    page.keyboard.press("Escape")
    assert not page.locator("#matrix").is_visible()
    assert page.evaluate("document.activeElement.dataset.place") == "1"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.getAttribute('aria-rowindex')") == "87"
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.dataset.place") == "0"


def test_the_map_by_keyboard(open_report: Any) -> None:
    page = open_report(documents.trapped())
    page.locator('#map td[tabindex="0"]').focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("attention.k, layer 3: α against its role 2.8. layers.3.attention.k · 1 trap")
    assert "heavy tail" in page.locator("#map-readout").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("#matrix-name").inner_text() == "layers.3.attention.k"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == label


def test_everything_is_reached_with_the_tab_key(open_report: Any) -> None:
    page = open_report(documents.trapped())
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.closest('[id]')?.id"))
    assert {
        "theme",
        "map-value",
        "map",
        "map-outside",
        "table-filter",
        "table-choices",
        "csv-copy",
        "csv-save",
    } <= reached
    assert {"table-head", "table-body"} <= reached


def test_a_mixture_of_experts_opens(open_report: Any) -> None:
    page = open_report(documents.gpt_oss_20b())
    folded = page.locator("#map td.many")
    assert folded.count() == 48
    folded.nth(30).focus()
    page.keyboard.press("Enter")
    assert page.locator("#experts-title").inner_text() == "experts.down: 24 layers × 32 experts"
    assert page.locator("#experts-map td[data-row]").count() == 768
    # The focus is on the worst expert of the layer that was opened.
    assert page.evaluate("document.activeElement.dataset.row") == "6"
    page.keyboard.press("Enter")
    assert page.locator("#matrix-name").inner_text().startswith("layers.6.experts.")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert not page.locator("#experts").is_visible()
    assert page.evaluate("document.activeElement.classList.contains('many')")


def test_the_csv_holds_the_rows_in_view_and_no_formula(open_report: Any) -> None:
    page = open_report(documents.hostile())
    with page.expect_download() as saved:
        page.click("#csv-save")
    assert saved.value.suggested_filename == "llmtrap-matrices.csv"
    with saved.value.path().open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(documents.HOSTILE_NAMES)
    assert '\'=HYPERLINK("http://example.invalid","go")' in {row["id"] for row in rows}
    assert not any(value.startswith(("=", "+", "@")) for row in rows for value in row.values())

    page.fill("#table-filter", "__proto__")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#csv-copy")
    page.locator("#table-told", has_text="Copied 1 matrix.").wait_for()  # a text predicate would need eval
    copied = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    assert [row["id"] for row in copied] == ["__proto__"]


def test_an_address_opens_its_matrix(open_report: Any) -> None:
    page = open_report(documents.trapped(), fragment="#matrix=layers.3.attention.k")
    page.wait_for_selector("#matrix[open]")
    assert page.locator("#matrix-name").inner_text() == "layers.3.attention.k"
    page.click("#matrix-close")
    assert page.evaluate("location.hash") == ""


def test_the_scheme_is_set_before_the_first_paint_and_kept(open_report: Any) -> None:
    page = open_report(documents.clean(), color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


@pytest.mark.parametrize("name", ["empty", "broken", "partial", "over_trained"])
def test_unusual_reports_open(open_report: Any, name: str) -> None:
    report = getattr(documents, name)()
    page = open_report(report)
    assert page.locator("#verdict .lead").inner_text()
    if report.matrices:
        page.locator(ROW).first.click()
        page.wait_for_selector("#matrix[open]")
        assert page.locator("#matrix-name").inner_text() == page.locator(f"{ROW} td").first.inner_text()


def test_without_scripts_the_verdict_and_the_table_are_there(open_report: Any) -> None:
    report = documents.trapped()
    page = open_report(report, java_script_enabled=False)
    assert page.locator(".lead").inner_text().startswith("layers.0.mlp.down: unlike any of 10 published models.")
    assert "2 of 86 matrices have Correlation Traps" in page.locator(".findings").inner_text()
    assert page.locator("#matrices noscript tbody tr").count() == 86
    assert page.locator("#where noscript p").is_visible()
    assert not page.locator("#table-filter").is_visible()


def test_paper_shows_no_controls(open_report: Any) -> None:
    page = open_report(documents.trapped())
    page.emulate_media(media="print")
    assert not page.locator(".bar").is_visible()
    assert not page.locator("#map-value").is_visible()
    assert page.locator("#map td.c-well-1").first.is_visible()
    assert page.locator(".first-look").is_visible()


def test_an_open_matrix_is_printed_alone_and_light(open_report: Any, tmp_path: Any) -> None:
    page = open_report(documents.trapped(), color_scheme="dark")
    page.get_by_role("link", name="layers.0.mlp.down").first.click()
    page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
    colour = "getComputedStyle(document.querySelector('#plot-shuffled .xtick text')).fill"
    dark = page.evaluate(colour)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#matrix .trap-list").is_visible()
    assert not page.locator("#verdict").is_visible()
    assert not page.locator("#matrix-close").is_visible()
    assert page.evaluate(colour) != dark
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate(colour) == dark


@pytest.mark.parametrize("width", [320, *(pytest.param(width, marks=pytest.mark.thorough) for width in (390, 860))])
def test_nothing_is_wider_than_a_narrow_screen(open_report: Any, width: int) -> None:
    report = documents.trapped()
    base = compare(report, documents.trapped_base())
    page = open_report(report, base, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("[data-open]").first.click()
    page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
    assert page.evaluate("document.getElementById('matrix').scrollWidth") <= width


def test_fourteen_thousand_rows_stay_light(open_report: Any) -> None:
    big = documents.gpt_oss_120b()
    more = tuple(m.model_copy(update={"id": f"other.{m.id}"}) for m in big.matrices[:4602])
    page = open_report(big.model_copy(update={"matrices": big.matrices + more}))
    assert page.locator("#table-count").inner_text() == "14,000 matrices"
    for share in (0.25, 0.5, 1.0):
        page.locator("#table-port").evaluate("(port, share) => { port.scrollTop = share * port.scrollHeight; }", share)
        for _ in range(100):  # the page's security policy forbids eval, so no predicate can be handed to it
            first = int(page.locator(ROW).first.get_attribute("data-place"))
            if abs(first / 14000 - share) < 0.01:
                break
            page.wait_for_timeout(20)
        assert abs(first / 14000 - share) < 0.01
        assert page.locator(ROW).count() < 60
    page.fill("#table-filter", "layers.35.experts.127.down")
    assert page.locator("#table-count").inner_text() == "1 of 14,000 matrices"


def test_a_matrix_shows_its_interval_its_peers_the_distances_and_the_base(open_report: Any) -> None:
    report, name = documents.trapped(), "layers.0.mlp.down"
    matrix = next(m for m in report.matrices if m.id == name)
    assert matrix.alpha is not None
    alpha = matrix.alpha.model_copy(
        update={"low": 2.5, "high": 4.25, "noise": NoiseRange(low=2.0, median=2.5, high=3.5), "band": "random"}
    )
    doubtful = matrix.model_copy(update={"alpha": alpha})
    report = report.model_copy(update={"matrices": tuple(doubtful if m.id == name else m for m in report.matrices)})
    page = open_report(report, compare(report, documents.trapped_base()), fragment=f"#matrix={name}")
    page.wait_for_selector("#plot-distances .scatterlayer .trace")
    assert page.locator("#plot-esd .legendtext").all_text_contents()[:2] == ["eigenvalues", "of the base"]
    numbers = page.locator("#matrix-numbers").inner_text()
    assert "α, interval\n2.50 to 4.25" in numbers
    assert "α of noise\n2.00 to 3.50" in numbers
    assert page.locator("#matrix-badges").inner_text().split("\n")[1] == "α: like noise"
    rows = [row.split("\t") for row in page.locator("#matrix-peers tbody").inner_text().split("\n")]
    assert [row[0] for row in rows] == [measure.label for measure in MEASURES.values()]
    assert any(row[3].endswith("▲") for row in rows)
    page.click("#matrix-close")
    page.get_by_role("button", name="α like noise").click()
    assert list(zip(cells(page, "id"), cells(page, "alpha"), strict=True)) == [(name, "3.11 noise")]


def test_red_is_for_what_is_rare(open_report: Any) -> None:
    page = open_report(documents.trapped())
    tones = {
        name: page.locator(f"{ROW}:has(td:text-is('{name}')) td.t-num").nth(2).get_attribute("class").split()[-1]
        for name in ("layers.0.mlp.down", "layers.3.attention.k")
    }
    assert tones == {"layers.0.mlp.down": "bad", "layers.3.attention.k": "told"}
