"""Where the documentation is: the one address of it that the package itself knows."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, metadata


def page_address(page: str) -> str | None:
    """The address of a page of the documentation, named without its ending; None where no address is known."""
    folder = _folder()
    return None if folder is None else f"{folder}/{page}.md"


@cache
def _folder() -> str | None:
    """The address in the package's metadata, but for the page that it ends in."""
    try:
        named = metadata("llmtrap").get_all("Project-URL") or []
    except PackageNotFoundError:  # run from its sources, without having been installed
        return None
    addresses = dict(item.split(", ", 1) for item in named if ", " in item)
    folder, _, _ = addresses.get("Documentation", "").rpartition("/")
    return folder or None
