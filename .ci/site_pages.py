"""What mkdocs.yml cannot say: the reference of the Python API, and links that leave docs/.

MkDocs calls these functions while it builds (`hooks` in mkdocs.yml). Every name of `llmtrap.__all__` has its place in
the reference, and one that does not resolve stops the build. Links such as `../benchmarks/results` work in the
repository; on the site they lead to the repository's address.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

import llmtrap

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

# Documented whole: what is raised, and the contract of a report.
MODULES = ("llmtrap.errors", "llmtrap.report.document")
_OUTSIDE = re.compile(r"(?<=\]\()\.\./(?P<path>[^)#\s]+)")


def public_names() -> list[str]:
    """The names that the package exports and that can be described; a version is a text."""
    return [name for name in sorted(llmtrap.__all__, key=str.lower) if not name.startswith("__")]


def where(name: str) -> str:
    """The full path of the object behind a public name: `llmtrap.audit` is a package and a function.

    Raises:
        AttributeError, ImportError: the name does not resolve.
    """
    value = getattr(llmtrap, name)
    module = getattr(value, "__module__", None)
    if not isinstance(module, str) or not hasattr(import_module(module), name):
        module = llmtrap._DEFINED_IN[name]  # an alias or a constant knows nothing of its module
    return f"{module}.{name}"


def reference() -> dict[str, str]:
    """The pages of the reference, in Markdown, by their place in docs/."""
    pages = {
        f"reference/{name}.md": f"---\ntitle: {name}\n---\n\n::: {where(name)}\n"
        for name in public_names()
        if where(name).rpartition(".")[0] not in MODULES
    }
    for module in MODULES:
        pages[f"reference/{module}.md"] = f"---\ntitle: {module}\n---\n\n# `{module}`\n\n::: {module}\n"
    lines = []
    for name in public_names():
        module = where(name).rpartition(".")[0]
        lines.append(f"- [`llmtrap.{name}`]({f'{module}.md#{where(name)}' if module in MODULES else f'{name}.md'})")
    lines += [f"- [`{module}`]({module}.md)" for module in MODULES]
    version = f"```python\nimport llmtrap\n\nllmtrap.__version__  # '{llmtrap.__version__}'\n```\n"
    head = f"---\ntitle: Python\n---\n\n# The Python API\n\n{version}\n"
    pages["reference/index.md"] = head + "\n".join(lines) + "\n"
    return pages


def listed(nav: list[Any]) -> set[str]:
    """Every page that a navigation names."""
    found: set[str] = set()
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found |= listed(value) if isinstance(value, list) else {value}
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give a place to the pages that nobody listed, and to the reference."""
    nav = config.nav or []
    rest = sorted({path.name for path in Path(config.docs_dir).glob("*.md")} - listed(nav))
    if rest:
        nav.append({"More": rest})
    first = "reference/index.md"
    nav.append({"Python": [first, *(page for page in reference() if page != first)]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference."""
    for path, text in reference().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Lead links out of docs/ to the repository."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    root = Path(config.config_file_path).parent

    def address(match: re.Match[str]) -> str:
        path = normpath(match["path"])
        if not (root / path).exists():
            return match[0]  # MkDocs then says that the link is broken
        return f"{str(config.repo_url).rstrip('/')}/{'tree' if (root / path).is_dir() else 'blob'}/main/{path}"

    return _OUTSIDE.sub(address, markdown)
