"""Build what ships with the package from calibrations that were run: the profile, and the demo's three checkpoints.

    python -m studies.grokking.package_profile REPORT.json [REPORT.json…] [--demo FOLDER]

The profile pools the runs of all reports. FOLDER is the --out of an `llmtrap calibrate`: the demo takes seed 0 of its
arm wd0, at the checkpoints that its report shows for the phases. Without it the demo stays as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from llmtrap.calibrate.document import CalibrationReport
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.profile import profile_of
from llmtrap.calibrate.rundir import RunFolder

PACKAGE = Path(__file__).parents[2] / "src" / "llmtrap" / "calibrate"


def read(file: Path) -> CalibrationReport:
    """One report."""
    return CalibrationReport.model_validate_json(file.read_text(encoding="utf-8"))


def write_profile(reports: list[Path]) -> None:
    """Write calibration.json into the package."""
    profile = profile_of([read(file) for file in reports])
    (PACKAGE / "calibration.json").write_text(json.dumps(profile.to_json_dict(), indent=1) + "\n")
    print(profile.sentence)


def write_demo(folder: Path) -> None:
    """Write the folder grokking/ into the package."""
    report = read(folder / "report.json")
    run = next(run for run in report.runs if run.recipe.arm == "wd0" and run.seed == 0)
    saved = RunFolder(folder / "runs" / f"{run.recipe.task}-wd0-seed0")
    for phase in PHASES:
        measured = run.representative(phase)
        if measured is None:
            raise SystemExit(f"{run.recipe.task}, seed 0, arm wd0 has no checkpoint in {phase}")
        target = PACKAGE / "grokking" / phase
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        metadata = {
            "format": "pt",
            "phase": phase,
            "step": str(measured.step),
            "train_accuracy": f"{measured.train_accuracy:.4f}",
            "test_accuracy": f"{measured.test_accuracy:.4f}",
            "data": run.source,
        }
        # Half precision, for the size of the package: α is the same to 10⁻³, and one trap of 20 at the edge goes.
        weights = {name: tensor.half() for name, tensor in saved.load_weights(measured.step).items()}
        save_file(weights, target / "model.safetensors", metadata)
        (target / "model.safetensors").chmod(0o644)
        size = (target / "model.safetensors").stat().st_size
        print(f"{phase}: step {measured.step:,}, test {measured.test_accuracy:.3f}, {size:,} bytes")


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--demo", type=Path)
    arguments = parser.parse_args()
    write_profile(arguments.reports)
    if arguments.demo is not None:
        write_demo(arguments.demo)


if __name__ == "__main__":
    main()
