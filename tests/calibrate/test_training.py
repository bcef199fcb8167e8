"""One seed, one trajectory; a killed run takes the same path; and the fast steppers do what plain PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from llmtrap.calibrate import mlp_stepper, training
from llmtrap.calibrate.data import TaskData, task_data
from llmtrap.calibrate.flat_adamw import FlatAdamW
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.mlp_stepper import MlpStepper
from llmtrap.calibrate.networks import forward, initial_weights, loss
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.recipe import Recipe, checkpoint_steps
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.steppers import AutogradStepper, Stepper, fresh_state, parts_of
from llmtrap.calibrate.training import Batches, train
from llmtrap.errors import CheckpointError, UsageError

CPU = torch.device("cpu")


def followed(recipe: Recipe, data: TaskData, path: Path, seed: int = 0) -> RunFolder:
    folder = RunFolder(path)
    folder.claim(recipe, seed, data)
    for _ in train(recipe, seed, data, folder):
        pass
    return folder


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def plain_pytorch(recipe: Recipe, data: TaskData, steps: int) -> dict[str, torch.Tensor]:
    """The same run as anyone would write it: nn.Linear, autograd, torch.optim.AdamW."""
    layers = [
        torch.nn.Linear(a, b, dtype=torch.float64) for a, b in zip(recipe.widths, recipe.widths[1:], strict=False)
    ]
    start = initial_weights(recipe, 0)
    for number, layer in enumerate(layers, start=1):
        layer.load_state_dict({"weight": start[f"fc{number}.weight"], "bias": start[f"fc{number}.bias"]})
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    adamw = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay
    )
    targets = torch.nn.functional.one_hot(data.train_labels, 10).double()
    generator_owner = Batches(recipe, 0, len(data.train_labels))
    recorder = _Recorder()
    for step in range(steps):
        first, last = generator_owner.next(recorder)
        chosen = recorder.order[first:last]
        for group in adamw.param_groups:
            group["lr"] = recipe.learning_rate(step)
        adamw.zero_grad()
        torch.nn.functional.mse_loss(model(data.train_inputs[chosen]), targets[chosen]).backward()
        adamw.step()
    return {
        f"fc{number}.{part}": getattr(layer, part).detach()
        for number, layer in enumerate(layers, start=1)
        for part in ("weight", "bias")
    }


class _Recorder:
    order = torch.arange(0)

    def begin_epoch(self, order: torch.Tensor) -> None:
        self.order = order


def stepped(
    make: Callable[..., Stepper], recipe: Recipe, data: TaskData, steps: int
) -> tuple[Stepper, dict[str, torch.Tensor]]:
    stepper = make(recipe, data, fresh_state(initial_weights(recipe, 0)), CPU)
    batches = Batches(recipe, 0, len(data.train_labels))
    for step in range(steps):
        stepper.step(*batches.next(stepper), step)
    return stepper, stepper.weights()


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_fast_steppers_follow_plain_pytorch(tiny: Recipe, weight_decay: float) -> None:
    recipe = replace(tiny, dtype="float64", weight_decay=weight_decay)
    data = task_data(recipe, 0)
    expected = plain_pytorch(recipe, data, 300)
    for make in (MlpStepper, AutogradStepper):
        assert apart(stepped(make, recipe, data, 300)[1], expected) < 1e-11


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_leaving_out_frozen_units_changes_nothing_but_rounding(
    tiny: Recipe, weight_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(tiny, dtype="float64", weight_decay=weight_decay, lr=5e-3)
    data = task_data(recipe, 0)
    stepper, short = stepped(MlpStepper, recipe, data, 2_200)
    live = int(stepper.state()["extra/live"].sum())
    monkeypatch.setattr(mlp_stepper, "_LOOK_EVERY", 10**9)
    whole, full = stepped(MlpStepper, recipe, data, 2_200)
    assert int(whole.state()["extra/live"].sum()) == 60
    assert live < 60, "no unit froze, so nothing was tested"
    assert apart(short, full) < 1e-6


def test_large_gradients_are_cut_as_pytorch_cuts_them(tiny: Recipe) -> None:
    recipe = replace(tiny, dtype="float64", gradient_limit=1e-3)
    data = task_data(recipe, 0)
    weights = initial_weights(recipe, 0)
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    loss(recipe, forward(recipe, leaves, data.train_inputs)[0], data.train_labels).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(leaves.values(), 1e-3)
    adamw = FlatAdamW(recipe, parts_of(fresh_state(weights)), 0, CPU)
    for name, leaf in leaves.items():
        adamw.gradients[name].copy_(1e4 * torch.as_tensor(leaf.grad))
    adamw.limit_gradients(1e-3)
    assert apart(adamw.gradients, {name: torch.as_tensor(leaf.grad) for name, leaf in leaves.items()}) < 1e-9


def test_a_recipe_is_known_again_by_what_it_sets(tiny: Recipe) -> None:
    assert replace(tiny, steps=9, arm="x", purpose="", stop_after=3).digest() == tiny.digest()
    assert len({tiny.digest(), replace(tiny, lr=1.0).digest(), replace(tiny, weight_decay_until=9).digest()}) == 3


def test_a_recipe_with_a_word_too_many_is_refused(tiny: Recipe) -> None:
    known = TypeAdapter(Recipe).validate_python(asdict(tiny))
    assert known == tiny
    with pytest.raises(ValidationError, match="rate"):
        TypeAdapter(Recipe).validate_python(asdict(tiny) | {"rate": 1.0})


def test_one_seed_gives_one_trajectory_and_another_gives_another(tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.longer(120)
    folders = [
        followed(recipe, task_data(recipe, seed), tmp_path / name, seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    first, again, other = (folder.load_weights(120) for folder in folders)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("stop", [700, 1_900])
def test_a_killed_run_takes_the_same_path(
    tiny: Recipe, digits: TaskData, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = followed(tiny, digits, tmp_path / "straight")
    broken = RunFolder(tmp_path / "broken")
    broken.claim(tiny, 0, digits)
    # Save between checkpoints too, at every sign of life, and drop the run at the first one past the stop.
    monkeypatch.setattr(training, "_SAVE_EVERY", 0.0)
    monkeypatch.setattr(training, "_STRETCH", 97)
    for reached in train(tiny, 0, digits, broken):
        if reached.step >= stop:
            break
    state = broken.load_state()
    assert state is not None
    assert stop <= int(state["step"]) < tiny.steps
    for _ in train(tiny, 0, digits, broken):
        pass
    assert broken.saved_steps() == straight.saved_steps() == checkpoint_steps(tiny.steps)
    for step in straight.saved_steps():
        assert same(broken.load_weights(step), straight.load_weights(step)), step


def test_nothing_changes_once_the_rate_is_zero(tiny: Recipe, digits: TaskData, folder: Path) -> None:
    recipe = replace(tiny, decay=(200, 400), steps=2_000)
    run = followed(recipe, digits, folder)
    assert [recipe.learning_rate(step) for step in (200, 300, 399, 400, 1_000)] == pytest.approx(
        [1e-2, 5e-3, 5e-5, 0.0, 0.0]
    )
    assert same(run.load_weights(501), run.load_weights(2_000))
    assert not same(run.load_weights(398), run.load_weights(2_000))


def test_a_folder_of_another_run_is_refused(tiny: Recipe, digits: TaskData, folder: Path) -> None:
    run = RunFolder(folder)
    run.claim(tiny, 0, digits)
    run.claim(tiny.longer(5_000), 0, digits)  # a longer run of the same recipe carries on
    with pytest.raises(UsageError, match="another recipe, seed or data set"):
        run.claim(replace(tiny, lr=1e-3), 0, digits)
    with pytest.raises(UsageError):
        run.claim(tiny, 0, task_data(tiny, 1))


def test_a_line_cut_short_is_dropped_and_a_damaged_one_is_named(folder: Path) -> None:
    folder.mkdir()
    run = RunFolder(folder)
    ten = Measurement(
        step=10, seconds=0.0, train_accuracy=0.5, test_accuracy=0.5, train_loss=1.0, test_loss=1.0, l2=1.0,
        circuit_complexity=0.0, sparsity=(0.0,), dead=(0,), class_share=(0.1,), layers=(),
    )  # fmt: skip
    twenty = ten.model_copy(update={"step": 20})
    run.append_measure(ten)
    with (folder / "measures.jsonl").open("a") as stream:
        stream.write('{"step": 20, "x"')
    assert run.measures() == (ten,)
    run.append_measure(twenty)
    assert run.measures() == (ten, twenty)
    lines = (folder / "measures.jsonl").read_text().splitlines()
    for damaged in ("not json", "[" * 100_000, "{}", lines[1].replace("20", "1" + "0" * 400, 1), "\udcff"):
        rows = [lines[0], damaged, lines[1]]
        (folder / "measures.jsonl").write_text("\n".join(rows) + "\n", errors="surrogateescape")
        with pytest.raises(CheckpointError, match=r"measures\.jsonl.*line 2 is damaged"):
            run.measures()


def test_the_transformer_learns_sums_and_its_shortcut_is_the_full_attention() -> None:
    recipe = replace(
        preset("modular-addition", "quick").arms[0], weight_decay=0.0, modulus=7, d_model=16, heads=2, d_mlp=32, batch=8
    )
    recipe = replace(recipe, lr=1e-2, warmup=10, train_fraction=0.8, dtype="float64")
    data = task_data(recipe, 0)
    weights = initial_weights(recipe, 0)
    logits, _ = forward(recipe, weights, data.train_inputs)
    assert torch.allclose(logits, _whole_transformer(recipe, weights, data.train_inputs), atol=1e-12)
    before = float(loss(recipe, logits, data.train_labels))
    _, trained = stepped(AutogradStepper, recipe, data, 400)
    after = float(loss(recipe, forward(recipe, trained, data.train_inputs)[0], data.train_labels))
    assert after < before / 5


def _whole_transformer(recipe: Recipe, weights: dict[str, torch.Tensor], pairs: torch.Tensor) -> torch.Tensor:
    """The same network written out over all three positions with PyTorch's own attention and a causal mask."""
    tokens = torch.cat((pairs, torch.full((len(pairs), 1), recipe.modulus)), dim=1)
    x = weights["embed.weight"][tokens] + weights["position.weight"]

    def heads(name: str) -> torch.Tensor:
        return (x @ weights[name].T).view(len(pairs), 3, recipe.heads, -1).transpose(1, 2)

    mixed = torch.nn.functional.scaled_dot_product_attention(
        heads("attn.q.weight"), heads("attn.k.weight"), heads("attn.v.weight"), is_causal=True
    )
    x = x + mixed.transpose(1, 2).reshape(len(pairs), 3, -1) @ weights["attn.out.weight"].T
    hidden = torch.relu(x @ weights["fc1.weight"].T + weights["fc1.bias"])
    x = x + hidden @ weights["fc2.weight"].T + weights["fc2.bias"]
    return (x @ weights["unembed.weight"].T)[:, -1]


def test_checkpoints_are_log_spaced_and_never_many() -> None:
    assert checkpoint_steps(12) == (0, 1, 2, 3, 4, 5, 6, 8, 10, 12)
    marks = checkpoint_steps(40_000)
    assert {0, 1, 10, 100, 1_000, 10_000, 20_000, 30_000, 40_000} <= set(marks)
    assert len(checkpoint_steps(10_000_000)) < 130
    assert np.all(np.diff(marks) > 0)
