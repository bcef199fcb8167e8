"""The page that shows the tables shows those of today, and its examples are true."""

from __future__ import annotations

import re
import tomllib

from benchmarks.names_page import PAGE, written

from llmtrap.checkpoint.families.table import Family
from llmtrap.checkpoint.naming import Module, load_grammar, name_places


def test_the_page_has_the_tables_of_today() -> None:
    page = PAGE.read_text("utf-8")
    assert page == written(page), "run: python -m benchmarks.names_page"


def test_the_pages_examples_are_true() -> None:
    examples = re.findall(r"^    (\S+)\.weight +(\S+)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    assert len(examples) == 5
    for name, id_ in examples:
        beside = [Module("model.layers.61.eh_proj", (8, 8))] if "61" in name else []
        places = name_places([Module(name, (8, 8)), *beside], load_grammar(), {})
        assert places[0].id == id_


def test_the_family_on_the_page_is_one() -> None:
    page = PAGE.with_name("families.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    family = Family.model_validate(tomllib.loads(example))
    assert family.roles["warp.coil"] == "mlp.up"
