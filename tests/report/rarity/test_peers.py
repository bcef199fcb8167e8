"""What stands out from its peers, and what chance explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support import documents

from llmtrap.report.document import Matrix
from llmtrap.report.rarity.measures import MEASURES
from llmtrap.report.rarity.peers import DISCOVERY_RATE, FEWEST_PEERS, departures


def layers(count: int, sigmas: Any, *, seed: int = 0, role: str = "mlp.up") -> list[Matrix]:
    """One matrix a layer whose largest entry is so many standard deviations out; `sigmas` is a function of depth."""
    rng = np.random.default_rng(seed)
    made = []
    for layer in range(count):
        matrix = documents.matrix(f"layers.{layer}.{role}", role=role, layer=layer, seed=layer)
        assert matrix.traps is not None
        noise = 10 ** rng.normal(0, 0.06)
        traps = matrix.traps.model_copy(update={"max_sigmas": float(sigmas(layer)) * noise, "kurtosis": 3.4 * noise})
        made.append(matrix.model_copy(update={"traps": traps}))
    return made


def test_one_entry_in_a_deep_layer_stands_out_and_nothing_else_does() -> None:
    found = departures(layers(24, lambda layer: 60.0 if layer == 17 else 8.0))
    out = {i: [name for name, d in by.items() if d.stands_out] for i, by in found.items()}
    assert {i for i, names in out.items() if names} == {17}
    assert out[17] == ["max_sigmas"]
    assert found[17]["max_sigmas"].z > 8
    assert found[17]["max_sigmas"].by == pytest.approx(np.log10(60 / 8), abs=0.2)


def test_a_trend_over_depth_is_no_departure() -> None:
    found = departures(layers(24, lambda layer: 6 * 1.12**layer))
    assert not any(d.stands_out for by in found.values() for d in by.values())


def test_what_lies_on_no_trend_is_found_beside_a_trend() -> None:
    found = departures(layers(24, lambda layer: 6 * 1.12**layer * (8 if layer == 2 else 1)))
    # 60 at layer 2 is less than the 73 that layer 22 has by the trend.
    assert found[2]["max_sigmas"].stands_out
    assert not found[22]["max_sigmas"].stands_out


def test_false_discoveries_are_controlled_over_all_comparisons() -> None:
    models = [layers(30, lambda _: 8.0, seed=seed) for seed in range(60)]
    found = [departures(model) for model in models]
    false = [
        any(d.stands_out for by in each.values() for name, d in by.items() if name == "max_sigmas") for each in found
    ]
    # Of models without a departure, one in a hundred may have any.
    assert np.mean(false) <= 5 * DISCOVERY_RATE


def test_too_few_peers_say_nothing() -> None:
    assert departures(layers(FEWEST_PEERS - 1, lambda layer: 1000.0 if layer == 0 else 8.0)) == {}
    assert departures([]) == {}


def test_experts_are_held_against_the_experts_of_their_layer() -> None:
    made = []
    for layer in range(2):
        for expert, matrix in enumerate(layers(16, lambda e: 50.0 if e == 3 and layer == 1 else 8.0 * 4**layer)):  # noqa: B023
            name = f"layers.{layer}.experts.{expert}.up"
            made.append(matrix.model_copy(update={"id": name, "layer": layer, "expert": expert, "role": "experts.up"}))
    found = departures(made)
    # 32 is usual in layer 1: the 50 is less than twice that, though six times what layer 0 has.
    assert found[16 + 3]["max_sigmas"].peers == 16
    assert found[16 + 3]["max_sigmas"].expected == pytest.approx(np.log10(32), abs=0.1)
    assert not found[16 + 2]["max_sigmas"].stands_out


def test_measures_are_those_of_the_definitions() -> None:
    matrix = documents.matrix("layers.0.mlp.up", shape=(400, 100))
    assert matrix.spectrum is not None
    spectrum = matrix.spectrum.model_copy(update={"spectral_norm": 10.0, "stable_rank": 40_000 / 900})
    matrix = matrix.model_copy(update={"spectrum": spectrum})
    assert MEASURES["spectral_norm"].of(matrix) == pytest.approx(1.0)
    assert MEASURES["stable_rank"].of(matrix) == pytest.approx(0.0)  # NM / (√N + √M)² is what chance gives
    unreliable = documents.matrix("a", shape=(40, 100))
    assert MEASURES["alpha"].of(unreliable) is None
