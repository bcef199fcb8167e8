"""The demo's checkpoint: written once, where the user can look at it and delete it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from llmtrap.demo import write_demo_checkpoint
from llmtrap.demo.manifest import MANIFEST_NAME
from llmtrap.errors import UsageError

DEMOS = ("gpt-oss",)


def demo_target(name: str | None, console: Console, *, quiet: bool) -> str:
    """Write the demo checkpoint of this name and return its folder.

    Raises:
        UsageError: there is no demo of this name.
    """
    if name not in (None, *DEMOS):
        raise UsageError(f"there is no demo '{name}'", remedy=f"Demos: {', '.join(DEMOS)}")
    folder = Path("llmtrap-demo") / "gpt-oss"
    if (folder / MANIFEST_NAME).is_file():
        return str(folder)
    manifest = write_demo_checkpoint(folder)
    if not quiet:
        console.print(f"made {folder}: a small GPT-OSS with {len(manifest.traps)} planted traps", soft_wrap=True)
    return str(folder)
