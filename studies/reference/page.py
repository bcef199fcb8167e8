"""docs/reference.md out of the study's results."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference.md"


def write_page() -> None:
    """Write the page."""
    held = {name: json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in _TABLES}
    made = Environment(  # noqa: S701 - Markdown of our own results
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    damaged = [row for row in held["damaged"] if row["model"] != "grokking network"]
    networks = [row for row in held["damaged"] if row["model"] == "grokking network"]
    text = made.get_template("reference.md.j2").render(
        models=held["models"],
        left_out=held["leave_one_out"],
        entries=_by_role(damaged),
        layers=[row for row in damaged if "random" in row["change"]],
        flips=[row for row in damaged if "bit" in row["change"]],
        networks=networks,
    )
    PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")


_TABLES = ("models", "leave_one_out", "damaged")


def _by_role(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """For each model and role, the level at each size of the entry."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        role, comma, size = row["change"].partition(", ")
        if comma:
            found[row["model"], role][size.removesuffix(" s")] = row["level"]
    return [{"model": model, "role": role, **levels} for (model, role), levels in found.items()]
