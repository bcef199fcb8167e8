"""Makes the README's pictures from the pages in reports/, in Chromium: `make reports && python docs/images/make.py`."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).parent
REPORTS = HERE.parents[1] / "reports"
COLOURS = 256


@dataclass(frozen=True)
class Picture:
    """One picture: which page, what of it, how large in CSS pixels, and in which scheme."""

    name: str
    report: str
    scheme: str
    width: int
    height: int
    matrix: str | None = None


PICTURES = (
    Picture("report", "demo", "light", 1240, 1680),
    Picture("report-dark", "demo", "dark", 1240, 1680),
    Picture("matrix", "minilm-l6", "light", 1240, 880, matrix="layers.2.mlp.down"),
    Picture("matrix-dark", "minilm-l6", "dark", 1240, 880, matrix="layers.2.mlp.down"),
)


def take(browser: Browser, picture: Picture) -> bytes:
    """The picture as PNG, as the browser paints it."""
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto((REPORTS / f"{picture.report}.html").as_uri() + (f"#matrix={picture.matrix}" if picture.matrix else ""))
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    if picture.matrix:
        page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
    shot = page.screenshot()
    context.close()
    return shot


def main() -> None:
    """Take every picture and write it with few colours, so that it stays small."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for picture in PICTURES:
            image = Image.open(io.BytesIO(take(browser, picture))).convert("RGB")
            # The rare colours matter most here: maximum coverage keeps them apart, where the median cut merges them.
            few = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(HERE / f"{picture.name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
