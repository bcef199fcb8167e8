"""Where an audit's reports go when no place is named."""

from __future__ import annotations

import os
from pathlib import Path

REPORTS = Path("llmtrap-reports")

# A folder's name may have 255 bytes on common file systems.
LONGEST = 200


def default_report_folder(name: str, kind: str) -> Path:
    """The folder of a target's reports, under llmtrap-reports; another for each target of the current folder.

    A repository of a hub gives ORG--NAME. A path below the current folder gives all its parts, since trainers call the
    checkpoints of every run alike: run_a/checkpoint-500 gives run_a-checkpoint-500. Any other path gives its last two
    parts, and a file of weights the folder's two and its own.
    """
    if kind == "hub":
        label = "--".join(_parts(name))
    else:
        label = "-".join(_parts(name)[-2:] if "://" in name else _parts_of_path(name))
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in label).strip(".") or "report"
    # The end of a long path tells more than its beginning.
    return REPORTS / safe.encode()[-LONGEST:].decode(errors="ignore")


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _parts_of_path(name: str) -> list[str]:
    here = Path.cwd()
    # Links are kept: the name that was typed is the one to be found again.
    path = Path(os.path.normpath(here / name))
    if path == here:
        return [path.name]
    if path.is_relative_to(here):
        return list(path.relative_to(here).parts)
    return list(path.parts[1:][-3 if path.is_file() else -2 :])
