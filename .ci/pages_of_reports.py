"""Write the pages of the reports in reports/ from their JSON, and the index: `make reports`.

The JSON is what was measured and is kept in the repository; a page is made from it and has 5 MB, most of it the library
that draws.
"""

from __future__ import annotations

import sys
from pathlib import Path

from llmtrap.calibrate.document import CalibrationReport
from llmtrap.calibrate.page import to_html
from llmtrap.report.against import compare
from llmtrap.report.html import write_html, write_index
from llmtrap.report.read import read_report, schema_of

# The page of a fine-tune is against the model that it was tuned from.
BASES = {"minilm-l6-sre": "minilm-l6"}


def main(folder: Path) -> None:
    """Write NAME.html beside every NAME.json of a folder."""
    for path in sorted(folder.glob("*.json")):
        page = path.with_suffix(".html")
        if (schema_of(path) or "").startswith("llmtrap.calibration/"):
            page.write_text(to_html(CalibrationReport.model_validate_json(path.read_bytes())), encoding="utf-8")
        else:
            report = read_report(path)
            base = folder / f"{BASES.get(path.stem, '')}.json"
            write_html(report, page, compare(report, read_report(base)) if base.is_file() else None)
        print(page)
    print(write_index(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
