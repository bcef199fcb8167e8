"""Audits of real checkpoints, each run once a process, and what several tests ask of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import llmtrap
from llmtrap.report.document import Matrix
from llmtrap.spectra.measured import Traps


def audit(folder: Path, **settings: Any) -> llmtrap.Report:
    """Audit a folder; the same call gives the same report."""
    return _audit(folder, llmtrap.AuditSettings(**settings))


@cache
def _audit(folder: Path, settings: llmtrap.AuditSettings) -> llmtrap.Report:
    return llmtrap.audit(str(folder), settings)


def matrices_of(report: llmtrap.Report) -> dict[str, Matrix]:
    """Every matrix by id."""
    return {matrix.id: matrix for matrix in report.matrices}


def traps_of(report: llmtrap.Report) -> dict[str, Traps]:
    """The traps part of every matrix by id; each must have one."""
    found = {}
    for matrix in report.matrices:
        assert matrix.traps is not None, matrix.id
        found[matrix.id] = matrix.traps
    return found


def without_times(report: llmtrap.Report) -> dict[str, Any]:
    """The document but for what the machine and the hour decide."""
    return timeless(report.to_json_dict())


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    """A report's document but for seconds, memory, the hour and what came from a journal; changed in place."""
    del document["summary"]["seconds"], document["summary"]["peak_rss_bytes"], document["summary"]["remembered"]
    del document["run"]
    for matrix in document["matrices"]:
        del matrix["seconds"]
    return document


def unaccounted_tensors(folder: Path, report: llmtrap.Report) -> tuple[set[str], set[str]]:
    """Tensors of the folder's files that the report is silent about, and tensors it names more than once.

    Names come from the files' own headers. Scales are accounted for by the weights they belong to.
    """
    stored: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            stored |= json.loads(file.read(int.from_bytes(file.read(8), "little"))).keys() - {"__metadata__"}
    audited = {matrix.tensor for matrix in report.matrices}
    skipped = {skip.tensor for skip in report.coverage.skipped}
    failed = {failure.tensor for failure in report.coverage.failed}
    scales = {f"{name}_scale_inv" for name in audited} | {name.replace("_blocks", "_scales") for name in audited}
    named = audited | skipped | failed | (scales & stored)
    twice = (audited & skipped) | (audited & failed) | (skipped & failed) | (named - stored)
    return stored - named, twice
