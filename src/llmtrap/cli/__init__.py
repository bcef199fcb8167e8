"""The command line: one file a command, and nothing in it but parsing, calling and showing.

Nothing is imported here before it is settled how signals end the process: the rest takes a second to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtrap.cli.commands import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from llmtrap.cli.commands import app  # noqa: PLC0415

        return app
    raise AttributeError(name)


def main() -> None:
    """Run the command line."""
    from llmtrap.cli.ending import end_at_once  # noqa: PLC0415

    end_at_once()
    from llmtrap.cli.commands import app  # noqa: PLC0415
    from llmtrap.cli.streams import install  # noqa: PLC0415

    install()
    app()
