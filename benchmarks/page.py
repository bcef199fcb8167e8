"""How large the HTML report gets and how soon it can be used, in headless Chromium.

    python -m benchmarks.page [--rounds 5]

Made documents of 1,658, 9,398 and 14,000 matrices; one JSON line each. `ready` is from the start of the navigation to
the drawn map and table; `plot` from the click on a row to its two spectra, Plotly's start included; `filter` and
`scroll` are one keystroke and one jump through the table, until its rows are drawn. `bare` opens a page as large in
which nothing runs, in turn with ours: what the browser itself needs on this machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from tests.support import documents

from llmtrap.report.document import Report
from llmtrap.report.html import write_html

_ROW = "#table-body tr[data-place]"


def main(arguments: list[str] | None = None) -> int:
    """Measure each document and print a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times each page is opened; medians are printed")
    options = parser.parse_args(arguments)
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for report in (documents.gpt_oss_20b(), documents.gpt_oss_120b(), fourteen_thousand()):
            print(json.dumps(measure(browser, report, Path(scratch), options.rounds)), flush=True)
        browser.close()
    return 0


def fourteen_thousand() -> Report:
    """The largest made document with half as many matrices again."""
    big = documents.gpt_oss_120b()
    more = tuple(m.model_copy(update={"id": f"other.{m.id}"}) for m in big.matrices[:4602])
    return big.model_copy(update={"matrices": big.matrices + more})


def measure(browser: Browser, report: Report, folder: Path, rounds: int) -> dict[str, Any]:
    """Size in bytes and median seconds of one report's page."""
    ours, bare = folder / "page.html", folder / "bare.html"
    write_html(report, ours)
    size = ours.stat().st_size
    bare.write_text(f'<!DOCTYPE html><script type="text/plain">{"x" * size}</script>', encoding="utf-8")
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, seconds in one_round(browser, ours, bare):
            took.setdefault(name, []).append(seconds)
    return {
        "matrices": len(report.matrices),
        "bytes": size,
        "seconds": {name: round(statistics.median(values), 3) for name, values in took.items()},
    }


def one_round(browser: Browser, ours: Path, bare: Path) -> list[tuple[str, float]]:
    """Open both pages once and use ours."""
    page = browser.new_page()
    times = [("bare", timed(lambda: page.goto(bare.as_uri())))]
    page.close()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    times.append(("ready", timed(lambda: opened(page, ours))))
    times.append(("plot", timed(lambda: plotted(page))))
    page.keyboard.press("Escape")
    times.append(("scroll", timed(lambda: scrolled(page))))
    times.append(("filter", timed(lambda: filtered(page))))
    page.close()
    return times


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action took."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def opened(page: Page, path: Path) -> None:
    """Until the map and the table are drawn."""
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-ready=yes]", state="attached")


def plotted(page: Page) -> None:
    """Until both spectra of the first row are drawn."""
    page.locator(_ROW).first.click()
    page.wait_for_selector("#plot-shuffled .scatterlayer .trace")


def scrolled(page: Page) -> None:
    """Until the last row is drawn after a jump to the end."""
    page.locator("#table-port").evaluate("port => { port.scrollTop = port.scrollHeight; }")
    last = page.locator("#table").get_attribute("aria-rowcount")
    page.wait_for_selector(f'#table-body tr[aria-rowindex="{last}"]')


def filtered(page: Page) -> None:
    """Until only the rows that fit one word are left."""
    page.fill("#table-filter", "layers.3.attention.q")
    page.wait_for_selector('#table[aria-rowcount="2"], #table[aria-rowcount="3"]')


if __name__ == "__main__":
    raise SystemExit(main())
