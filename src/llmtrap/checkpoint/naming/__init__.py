"""From a module's name to its place in the model: part, layer, role and expert, by a grammar of four tables."""

from __future__ import annotations

from llmtrap.checkpoint.naming.grammar import Grammar, load_grammar
from llmtrap.checkpoint.naming.places import Module, Place, name_places

__all__ = ["Grammar", "Module", "Place", "load_grammar", "name_places"]
