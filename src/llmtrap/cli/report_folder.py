"""Where an audit's reports go when no place is named: never where another report lies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from llmtrap.checkpoint.strict_json import memory_of
from llmtrap.documents import DocumentError, open_document
from llmtrap.report.document import File, Report, Settings
from llmtrap.report.read import LIMIT_BYTES

REPORTS = Path("llmtrap-reports")

# A folder's name may have 255 bytes on common file systems.
LONGEST = 160
# Of what is read back of a report without its matrices: a million tensors left out, with names of usual length.
_LONGEST_LINE, _LONGEST_HEAD = 1 << 16, 200_000_000
_MOST_MEMORY = 1_000_000_000


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


def with_settings(folder: Path, settings: Settings) -> Path:
    """The folder for these settings: those that are not the default ones are in its name.

    Patterns are told apart by a digest, since they hold what no name of a folder may: `NAME_no-alpha_subset-1a2b3c4d`.
    """
    words = [] if settings.alpha else ["no-alpha"]
    words += [settings.traps] * (settings.traps != "auto")
    words += [settings.trap_rule] * (settings.trap_rule != "tracy-widom")
    words += ["split-fused"] * settings.split_fused
    words += [f"shuffles-{settings.shuffles}"] * (settings.shuffles != 5)
    words += [f"seed-{settings.seed}"] * (settings.seed != 0)
    if settings.include or settings.exclude:
        patterns = json.dumps([settings.include, settings.exclude]).encode()
        words.append(f"subset-{hashlib.blake2b(patterns, digest_size=4).hexdigest()}")
    return folder.with_name("_".join([folder.name, *words]))


def free_folder(folder: Path, report: Report) -> Path:
    """The folder itself, or the first of `FOLDER-2`, `FOLDER-3`, … that holds no report of another audit.

    The same weights under the same settings make the same report, which replaces the old one. Without digests it is
    not known whether the weights are the same.
    """
    named = with_settings(folder, report.settings)
    tried = (named if number == 1 else named.with_name(f"{named.name}-{number}") for number in count(1))
    return next(place for place in tried if _may_replace(place / "report.json", report))


def _may_replace(path: Path, report: Report) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode) and not path.parent.is_symlink():
            return _is_report_of(path, report)
    return True  # nothing is there, or no file: that is refused by whoever writes


def _is_report_of(path: Path, report: Report) -> bool:
    head = _head(path)
    try:
        files = [File.model_validate(file) for file in head["target"]["files"]]
        settings = Settings.model_validate(head["settings"])
        name = head["target"]["name"]
    except (KeyError, TypeError, ValueError):
        return False
    known = all(file.digest is not None for file in files)
    return known and tuple(files) == report.target.files and settings == report.settings and name == report.target.name


def _head(path: Path) -> dict[str, Any]:
    """A written report without its matrices, which stand last, a line each; empty where it is none."""
    lines: list[bytes] = []
    left = _LONGEST_HEAD
    try:
        with open_document(path, LIMIT_BYTES, "report", follow=False) as file:
            while (line := file.readline(_LONGEST_LINE)) and not line.startswith(b'  "matrices": ['):
                lines.append(line)
                left -= len(line)
                if left < 0 or len(line) == _LONGEST_LINE:
                    return {}
        content = b"".join(lines).rstrip().removesuffix(b",") + b"}"
        if memory_of(np.frombuffer(content, np.uint8)) > _MOST_MEMORY:
            return {}
        head = json.loads(content)
    except (DocumentError, ValueError, RecursionError):
        return {}
    return head if isinstance(head, dict) else {}


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
