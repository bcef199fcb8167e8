"""From names to roles: which family a checkpoint is of, and which rule of its table a module falls under."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmtrap.checkpoint.config import texts
from llmtrap.checkpoint.families.table import Family, Rule, Split, load_families

__all__ = ["GENERIC", "Family", "Matcher", "Rule", "Split", "choose_family", "load_families"]

GENERIC = "generic"

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")  # a whole component; the 1 of `fc1` says what a module is
_SAMPLE = 2000
_ENOUGH = 0.5
_DIGITS = 9  # a longer number is no layer's, and Python refuses to read one of thousands of digits


def choose_family(config: dict[str, Any], modules: Sequence[tuple[str, str]]) -> Family:
    """The family whose model types include the configuration's, else the one that most module names match.

    A family named by the configuration is left for another only where it matches under half of the names and the other
    matches more: names are what the weights are called, a configuration can be of something else.

    Args:
        config: the parsed config.json, possibly empty.
        modules: name and storage format of the modules with tensors of two or more dimensions.
    """
    families = {family.name: family for family in load_families() if family.name != GENERIC}
    types = texts(config, "model_type")
    named = next((family for kind in types for family in families.values() if kind in family.model_types), None)
    sample = modules[:: max(1, len(modules) // _SAMPLE)]
    if named is not None and _share(named, sample)[0] >= _ENOUGH:
        return named
    # Of several that match as much, the plainest: Llama's names are a part of every mixture's that extends them.
    shares = {name: (*_share(family, sample), -len(family.rules), name == "llama") for name, family in families.items()}
    best = max(families, key=lambda name: shares[name])
    if named is not None and shares[best][0] <= shares[named.name][0]:
        return named
    if shares[best][0] >= _ENOUGH:
        return families[best]
    return named or next(family for family in load_families() if family.name == GENERIC)


class Matcher:
    """Finds the rule of a family that a module falls under.

    Modules of one kind differ in their numbers alone, so the rule is looked for once a kind: each of fifty thousand
    experts then costs one regular expression, not a table of them.
    """

    def __init__(self, family: Family):
        self._family = family
        self._rules: dict[tuple[str, str], Rule | None] = {}

    def find(self, module: str, encoding: str) -> tuple[Rule, dict[str, str]] | None:
        """The first rule that the whole module name matches, and the named parts of the name, translated."""
        kind = (_NUMBER.sub("0", module), encoding)
        if kind not in self._rules:
            self._rules[kind] = self._first(module, encoding)
        rule = self._rules[kind]
        found = rule.pattern.fullmatch(module) if rule else None
        if rule is None or found is None:
            return None
        named = {key: value for key, value in found.groupdict().items() if value is not None}
        if len(named.get("layer", "")) > _DIGITS or len(named.get("expert", "")) > _DIGITS:
            return None
        return rule, {key: rule.values.get(key, {}).get(value, value) for key, value in named.items()}

    def _first(self, module: str, encoding: str) -> Rule | None:
        fitting = (rule for rule in self._family.rules if rule.encoding in (None, encoding))
        return next((rule for rule in fitting if rule.pattern.fullmatch(module)), None)


def _share(family: Family, modules: Sequence[tuple[str, str]]) -> tuple[float, int]:
    """What part of the modules the family's rules match, and how many by a rule for just their storage format."""
    matcher = Matcher(family)
    found = [match[0] for module, encoding in modules if (match := matcher.find(module, encoding))]
    return len(found) / max(1, len(modules)), sum(rule.encoding is not None for rule in found)
