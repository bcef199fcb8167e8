"""Both tools on matrices whose differences are known in advance."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.processes import run

from llmtrap.verify import Reference, compare, run_weightwatcher
from llmtrap.verify.compare import sample


def heavy(rows: int, columns: int, scale: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, columns))
    left, right = rng.standard_normal((rows, 40)), rng.standard_normal((40, columns))
    return (scale * (noise + (left * np.arange(1, 41) ** -0.7) @ right)).astype(np.float32)


@pytest.mark.skipif(find_spec("weightwatcher") is None, reason="the extra 'weightwatcher' is not installed")
def test_weightwatcher_agrees_on_alpha_tail_and_norms() -> None:
    matrices = {"tall": heavy(300, 120, 0.1, 0), "wide": heavy(100, 260, 0.1, 1)}
    matrices["small.entries"] = heavy(300, 120, 1e-4, 2)
    planted = heavy(300, 120, 0.1, 3)
    planted[7, 9] += 0.1 * 6 * (300 * 120) ** 0.25
    matrices["planted"] = planted

    references = {name: found for name, _, found in run_weightwatcher(matrices.items()) if isinstance(found, Reference)}
    compared = {c.name: c for c in compare(matrices, references)}

    assert set(compared) == set(matrices)
    assert all(c.norms_agree for c in compared.values())
    assert [name for name, c in compared.items() if not c.alpha_agrees] == ["small.entries"]
    # Entries of 10⁻⁴ put most eigenvalues under its absolute floor, and leave it too few for its usual fit.
    assert "floor is absolute" in compared["small.entries"].reasons[0]
    assert compared["small.entries"].reasons[1] == "under 20 eigenvalues it fits in another way"
    assert compared["planted"].traps == compared["planted"].reference.traps == 1
    assert compared["planted"].reasons == ()


def test_a_difference_in_counts_is_explained() -> None:
    matrices = {"square": heavy(200, 200, 0.1, 0), "near": heavy(110, 100, 0.1, 0), "tall": heavy(400, 100, 0.1, 0)}
    absent = Reference(alpha=2.0, tail=1, spectral_norm=1.0, frobenius_norm=1.0, traps=9)

    compared = {c.name: c for c in compare(matrices, dict.fromkeys(matrices, absent))}

    assert compared["square"].reasons[2:] == ("it fits a square matrix by a quarter circle of fixed support",)
    assert compared["near"].reasons[2:] == ("its fit of σ is erratic for 1 < Q < 1.2",)
    assert compared["tall"].reasons[2:] == (
        "its σ is fitted to the spectrum; ours is the variance of the bulk entries",
    )
    for c in compared.values():
        assert c.reasons[0] == "no reason known for its α: please report it"
        assert c.reasons[1].endswith("by its account 1 and 1")
    assert not any(c.alpha_agrees or c.norms_agree for c in compared.values())


def test_a_matrix_that_weightwatcher_leaves_out_is_not_compared() -> None:
    assert compare({"small": heavy(60, 20, 0.1, 0)}, {}) == []


def test_the_sample_is_spread_over_what_it_would_measure(minilm_matrices: tuple) -> None:  # type: ignore[type-arg]
    chosen = sample(minilm_matrices, 4)
    assert len(chosen) == 4
    assert [m.id for m in chosen] == sorted({m.id for m in chosen}, key=[m.id for m in minilm_matrices].index)
    assert all(min(m.shape) >= 50 for m in sample(minilm_matrices, 1000))


@pytest.mark.skipif(find_spec("weightwatcher") is None, reason="the extra 'weightwatcher' is not installed")
def test_the_command_shows_both_side_by_side_and_names_what_is_left_out(tmp_path: Path) -> None:
    bad, zero = heavy(120, 60, 0.1, 1), np.zeros((120, 60), np.float32)
    bad[3, 4] = np.nan
    save_file(
        {"good.weight": heavy(130, 60, 0.1, 0), "bad.weight": bad, "zero.weight": zero, "tiny.weight": zero[:, :9]},
        tmp_path / "model.safetensors",
    )
    done = run("verify", tmp_path, "--matrices", "5", env={"COLUMNS": "80"})

    assert done.returncode == 0, done.stderr
    header, good, zero, last = done.stdout.splitlines()
    assert header.split() == ["matrix", "α", "WW's", "tail", "WW's", "norms", "traps", "WW's"]
    name, ours, theirs, *_ = good.split()
    assert (name, ours) == ("good", theirs)
    assert zero.split() == ["zero", "–", "–", "0", "0", "equal", "0", "–"]
    assert last == "α agrees within 10⁻³, with the same tail, on 2 of 2; norms within 10⁻⁵ on 2."
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "WeightWatcher measures 3 matrices: about" in done.stderr
    assert re.search(r"^\d of 3: bad, left out: WeightWatcher failed", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_a_part_that_the_model_does_not_have_is_refused_with_those_it_has(tmp_path: Path, thorough: bool) -> None:
    matrix = heavy(120, 60, 0.1, 1)
    save_file(
        {"model.layers.0.mlp.up_proj.weight": matrix, "vision_tower.layers.0.mlp.fc1.weight": matrix},
        tmp_path / "model.safetensors",
    )
    refused = run("verify", tmp_path, "--part", "audio", env={"COLUMNS": "200"})

    assert refused.returncode == 2
    assert "The parts of this model: text, vision" in refused.stderr
    if thorough:  # WeightWatcher takes long to start
        chosen = run("verify", tmp_path, "--part", "vision", env={"COLUMNS": "80"})
        assert chosen.returncode == 0, chosen.stderr
        assert [line.split()[0] for line in chosen.stdout.splitlines()[1:-1]] == ["vision.layers.0.mlp.up"]
