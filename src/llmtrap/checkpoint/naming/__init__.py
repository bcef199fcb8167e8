"""From a module's name to its place in the model: part, layer, role and expert, by a grammar of four tables."""

from __future__ import annotations

from llmtrap.checkpoint.naming.grammar import Grammar, load_grammar
from llmtrap.checkpoint.naming.kinds import Module
from llmtrap.checkpoint.naming.places import Place, name_places, table_of

__all__ = ["Grammar", "Module", "Place", "load_grammar", "name_places", "table_of"]
