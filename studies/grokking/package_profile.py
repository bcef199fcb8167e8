"""Build what ships with the package from calibrations that were run: the profile, and the demo's three checkpoints.

    python -m studies.grokking.package_profile FOLDER [FOLDER…]

Each FOLDER is the --out of an `llmtrap calibrate`. The profile pools the runs of all of them; the demo takes seed 0 of
arm wd0 of the last, at the checkpoints that the report shows for the phases.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import save_file

from llmtrap.calibrate.document import CalibrationReport
from llmtrap.calibrate.profile import history_of, profile_of
from llmtrap.calibrate.rundir import RunFolder

PACKAGE = Path(__file__).parents[2] / "src" / "llmtrap" / "calibrate"


def main(folders: list[Path]) -> None:
    """Write calibration.json and the folder grokking/ into the package."""
    reports = [CalibrationReport.model_validate_json((folder / "report.json").read_text()) for folder in folders]
    profile = profile_of(reports)
    (PACKAGE / "calibration.json").write_text(json.dumps(profile.to_json_dict(), indent=1) + "\n")
    print(profile.sentence)
    run = next(run for run in reports[-1].runs if run.arm == "wd0" and run.seed == 0)
    history = history_of(run)
    saved = RunFolder(folders[-1] / "runs" / f"{run.task}-wd0-seed0")
    for phase in ("pre-grok", "grok", "anti-grok"):
        measured = history.representative(phase)  # type: ignore[arg-type]
        if measured is None:
            raise SystemExit(f"{run.task}, seed 0, arm wd0 has no checkpoint in {phase}")
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
        save_file(saved.load_weights(measured.step), target / "model.safetensors", metadata)
        (target / "model.safetensors").chmod(0o644)
        size = (target / "model.safetensors").stat().st_size
        print(f"{phase}: step {measured.step:,}, test {measured.test_accuracy:.3f}, {size:,} bytes")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
