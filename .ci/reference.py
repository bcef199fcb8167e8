"""Write the reference of the Python API to the folder named; a name that does not resolve is an error."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pdoc

import llmtrap

MODULES = ("llmtrap", "llmtrap.errors", "llmtrap.report.document")


def main(folder: Path) -> None:
    """Document MODULES. pdoc reads a module's own dictionary: names that are imported when asked for are put there."""
    warnings.simplefilter("error")
    for package in ("llmtrap", *(f"llmtrap.{found.name}" for found in iter_modules(llmtrap.__path__) if found.ispkg)):
        module = import_module(package)
        vars(module).update({name: getattr(module, name) for name in getattr(module, "__all__", ())})
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
