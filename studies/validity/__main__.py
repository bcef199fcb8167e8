"""`python -m studies.validity [--quick] [--only PART] [--workers N]`: simulate, then write figures and the page."""

from __future__ import annotations

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

from studies.validity.work import RESULTS, run

# Name of the results, module, and the function that computes a cell.
PARTS = {
    "gaussian_edge": ("gaussian_edge", "edge_tail"),
    "false_positives": ("false_positives", "null_tail"),
    "power": ("power", "detection"),
    "spread": ("spread", "counts_over_shuffles"),
    "soundness": ("soundness", "hardest"),
    "families": ("families", "border"),
    "prediction": ("prediction", "shuffled_at_the_border"),
    "exponent": ("exponent", "accuracy"),
    "noise_bands": ("noise_bands", "called"),
    "precision": ("precision", "difference"),
}


def main() -> None:
    """Run the parts asked for, and rewrite the page from all results there are."""
    parser = argparse.ArgumentParser(prog="python -m studies.validity", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the draws: whether it runs at all")
    parser.add_argument("--only", choices=[*PARTS, "page"], action="append", help="this part alone; may be repeated")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="validity-")) if options.quick else RESULTS
    for name, (module, task) in PARTS.items():
        if options.only and name not in options.only:
            continue
        part = import_module(f"studies.validity.{module}")
        run(name, getattr(part, task), part.cells(options.quick), options.workers, folder)
    if not options.quick and all((RESULTS / f"{name}.json").exists() for name in PARTS):
        import_module("studies.validity.page").write()


if __name__ == "__main__":
    main()
