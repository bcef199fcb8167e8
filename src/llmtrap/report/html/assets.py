"""The page's own scripts and styles, read from the package, and Plotly's script from its Python package."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files

from markupsafe import Markup

_ASSETS = files("llmtrap.report.html") / "assets"

# In the order in which they build on each other; all share one scope.
_SCRIPTS = ("data", "map_values", "heatmap", "experts", "csv", "table", "plots", "matrix", "depth", "main")
_STYLES = ("base", "page", "heatmap", "table", "matrix", "print")


@dataclass(frozen=True)
class Script:
    """An inline script and the hash that lets it pass the page's content security policy."""

    text: Markup
    digest: str


def style() -> Markup:
    """The page's style sheet."""
    return Markup("\n".join(_read(f"css/{name}.css") for name in _STYLES))  # noqa: S704 - files of this package


def theme_script() -> Script:
    """The script that sets the colour scheme before the first paint."""
    return inline_script(_read("js/theme.js"))


def page_script() -> Script:
    """All scripts of the page, as one."""
    body = "\n".join(_read(f"js/{name}.js") for name in _SCRIPTS)
    return inline_script(f'"use strict";\n(() => {{\n{body}\n}})();\n')


def sort_script() -> Script:
    """The script that makes a plain table sortable by its columns."""
    return inline_script(_read("js/sort.js"))


@cache
def plotly_script() -> Script:
    """Plotly, whole, as its Python package has it: five megabytes, for pages with maps of colours."""
    plotly = import_module("plotly.offline")  # only where such a page is written
    return inline_script(plotly.get_plotlyjs())


@cache
def basic_plotly_script() -> Script:
    """Plotly's bundle for lines, points and bars alone: a quarter of the whole.

    It is plotly.js-basic-dist-min 4.1.1 of the npm registry, unchanged; its licence (MIT) lies beside it.
    """
    return inline_script(_read("vendor/plotly-basic.min.js"))


def inline_script(text: str) -> Script:
    """Ready for a `<script>`; the hash is of what a browser sees, which knows one kind of line end."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script of the page would end its own element")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"sha256-{digest}")  # noqa: S704 - files of this package and of plotly's


def _read(name: str) -> str:
    return _ASSETS.joinpath(*name.split("/")).read_text(encoding="utf-8")
