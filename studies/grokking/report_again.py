"""Write a calibration's report again from its own JSON, where its runs' folders are gone: rules and words as of now.

    python -m studies.grokking.report_again REPORT.json OUT

Measures, recipes and the runs looked at closely are taken as they are; phases, rules, tables and conclusions are made
anew from them. OUT gets report.html, report.json and calibration.json.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

from llmtrap.calibrate.document import CalibrationReport
from llmtrap.calibrate.run import report_of, write
from llmtrap.calibrate.settings import CalibrationSettings


def again(old: CalibrationReport, out: Path) -> CalibrationReport:
    """The same runs, reported by the code as it is now; versions and seconds stay those of the old report."""
    known = {field.name for field in fields(CalibrationSettings)}
    given = {key: value for key, value in old.settings.items() if key in known} | {"arms": tuple(old.settings["arms"])}
    settings = CalibrationSettings(out=out, **given)
    new = report_of(settings, old.runs, old.failed, old.studies, old.seconds)
    return new.model_copy(update={"versions": old.versions})


def main() -> None:
    """Read, report, write."""
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    write(again(CalibrationReport.model_validate_json(source.read_text(encoding="utf-8")), out), out)


if __name__ == "__main__":
    main()
