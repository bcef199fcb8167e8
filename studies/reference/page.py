"""docs/reference.md out of the study's results."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llmtrap.report.rarity.reference import shipped_reference
from studies.reference.held_out import beyond_in_alpha

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference.md"


def write_page() -> None:
    """Write the page."""
    PAGE.write_text(rendered(), encoding="utf-8")


def rendered() -> str:
    """The page, as the results and the table that ships give it."""
    held = {name: json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in _TABLES}
    made = Environment(  # noqa: S701 - Markdown of our own results
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    damaged = [row for row in held["damaged"] if row["model"] != "grokking network"]
    networks = [row for row in held["damaged"] if row["model"] == "grokking network"]
    text = made.get_template("reference.md.j2").render(
        models=held["models"],
        seeds=held["seeds"],
        left_out=held["leave_one_out"],
        entries=_by_role(damaged),
        layers=[row for row in damaged if "random" in row["change"]],
        flips=[row for row in damaged if "bit" in row["change"]],
        networks=networks,
        held_out=[row for row in held["held_out"] if row["reached"] > 1],
        families=len({row["family"] for row in held["held_out"]}),
        beyond=_beyond(held["held_out"]),
        alpha=len(beyond_in_alpha(shipped_reference())),
        lineages=len({model.lineage for model in shipped_reference().models}),
    )
    return text.rstrip() + "\n"


_TABLES = ("models", "leave_one_out", "damaged", "held_out", "seeds")


def _by_role(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """For each model and role, the level at each size of the entry."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        role, comma, size = row["change"].partition(", ")
        if comma:
            found[row["model"], role][size.removesuffix(" s")] = row["level"]
    return [{"model": model, "role": role, **levels} for (model, role), levels in found.items()]


def _beyond(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By family, the models that go farther than limits set without it allow, where such limits are known."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["limit"] is not None and row["reached"] > row["limit"] and row["model"] not in found[row["family"]]:
            found[row["family"]].append(row["model"])
    return {family: models for family, models in found.items() if models}
