"""A package of a function's name is called like it, and its modules are imported as any package's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import llmtrap
import llmtrap.audit.plan as plan
import llmtrap.calibrate.settings as calibrate_settings
import llmtrap.gate.run as gate_run


def test_modules_below_a_function_are_imported_by_their_path() -> None:
    assert plan.__name__ == "llmtrap.audit.plan"
    assert gate_run.gate is llmtrap.gate.gate  # type: ignore[attr-defined]
    assert calibrate_settings.CalibrationSettings is llmtrap.CalibrationSettings


@pytest.mark.parametrize("name", ["audit", "calibrate", "gate"])
def test_a_package_has_the_signature_and_the_words_of_its_function(name: str) -> None:
    package: Any = getattr(llmtrap, name)
    assert callable(package)
    assert inspect.signature(package) == inspect.signature(getattr(package, name))
    assert package.__doc__ == inspect.getdoc(getattr(package, name))


def test_only_what_is_meant_to_be_used_is_offered() -> None:
    assert set(dir(llmtrap)) == set(llmtrap.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = llmtrap.nothing  # type: ignore[attr-defined]
