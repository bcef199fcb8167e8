"""Checkpoints on a hub, by name: found, pinned to a commit, and streamed by byte ranges."""

from __future__ import annotations

from llmtrap.checkpoint.sources.hub.source import HubOptions, HubSource
from llmtrap.checkpoint.sources.hub.target import HubTarget, parse_target
from llmtrap.checkpoint.sources.hub.transfer import Traffic

__all__ = ["HubOptions", "HubSource", "HubTarget", "Traffic", "parse_target"]
