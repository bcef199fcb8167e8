"""The recipes of `quick`, `full` and `paper`, for each task: which arms, how many steps, how many seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from llmtrap.calibrate.recipe import Recipe, Task

PresetName = Literal["quick", "full", "paper"]
PRESETS: tuple[PresetName, ...] = ("quick", "full", "paper")


@dataclass(frozen=True)
class Preset:
    """Arms to run, each with `seeds` seeds."""

    name: PresetName
    task: Task
    seeds: int
    arms: tuple[Recipe, ...]


# The network, data, loss and initialisation of Prakash & Martin (arXiv 2602.02859, appendix A); only the optimiser's
# clock is faster: batch 50 for 200, ten times the learning rate, beta2 0.99 for 0.999, and a warm-up that makes so high
# a rate survivable at eight times the usual initialisation.
_QUICK_IMAGES = Recipe(
    task="mnist",
    arm="wd0",
    purpose="no weight decay: the arm in which all three phases are expected",
    widths=(784, 200, 200, 10),
    init_scale=8.0,
    test_size=2000,
    batch=50,
    lr=5e-3,
    betas=(0.9, 0.99),
    warmup=10_000,
    steps=40_000,
)
_FULL_IMAGES = replace(_QUICK_IMAGES, lr=2e-3, betas=(0.9, 0.999), warmup=5_000, steps=500_000, test_size=0)
_PAPER_IMAGES = replace(
    _FULL_IMAGES, lr=5e-4, batch=200, warmup=0, steps=10_000_000, dtype="float64", purpose="the paper's own protocol"
)

# Found by trial; the papers do not say how their collapse came about. The switch of the weight decay and the float
# width are what provokes it: without decay the margin grows, and past 17 float32 rounds softmax − 1 to 0, so that the
# gradients of a training example no longer add up to 0 over its classes.
_ADDITION = Recipe(
    task="modular-addition",
    arm="float32",
    purpose="weight decay switched off after grokking, in float32: a collapse provoked by rounding",
    modulus=59,
    d_model=64,
    heads=4,
    d_mlp=256,
    train_fraction=0.35,
    batch=256,
    loss="cross-entropy",
    lr=1.2e-2,
    betas=(0.9, 0.998),
    weight_decay=0.3,
    weight_decay_until=4_000,
    warmup=1_000,
    steps=30_000,
    checkpoint_every=500,
    stop_after=10,
)
# The paper gives neither rate, decay, fraction nor steps for this task; these are those of Nanda et al. 2023, which it
# names as its model.
_PAPER_ADDITION = Recipe(
    task="modular-addition",
    arm="nanda",
    purpose="the paper's sizes with the optimiser of Nanda et al. 2023, as the paper does not state its own",
    modulus=113,
    d_model=128,
    heads=4,
    d_mlp=512,
    train_fraction=0.3,
    batch=0,
    loss="cross-entropy",
    lr=1e-3,
    betas=(0.9, 0.98),
    weight_decay=1.0,
    warmup=10,
    steps=40_000,
)

# The data and the network of Wang et al. (arXiv 2405.15071) made small enough for minutes on a CPU.
_COMPOSITION = Recipe(
    task="composition",
    arm="rate-decay",
    purpose="the learning rate falls to 0 once the facts are known",
    entities=50,
    relations=20,
    degree=20,
    inferred_ratio=12.6,
    d_model=64,
    heads=4,
    d_mlp=256,
    layers=2,
    test_size=500,
    batch=256,
    loss="cross-entropy",
    lr=3e-3,
    gradient_limit=1.0,
    weight_decay=0.1,
    warmup=500,
    decay=(3_000, 6_000),
    steps=6_000,
    checkpoint_every=250,
)

# The sizes of Wang et al., and the optimiser that arXiv 2605.12394 gives for its own run of them.
_PAPER_COMPOSITION = replace(
    _COMPOSITION,
    arm="paper",
    purpose="the papers' sizes and optimiser: GPT-2 of eight layers on 2,000 entities and 200 relations",
    entities=2_000,
    relations=200,
    d_model=768,
    heads=12,
    d_mlp=3_072,
    layers=8,
    gelu=True,
    test_size=3_000,
    batch=512,
    lr=1e-4,
    weight_decay=1e-3,
    warmup=2_000,
    decay=None,
    steps=1_500_000,
    checkpoint_every=0,
)

_STEADY = "the same with a steady learning rate"
_UNDECAYED = "a steady learning rate and no weight decay"
_DECAYED = "learning rate decayed to 0 after grokking: the true negative, which should neither collapse nor show traps"
_HARD = "weight decay 0.1: the known hard case, traps without much loss of accuracy"
_SOFT = "weight decay 0.01, the paper's control"
_EXACT = "the same in float64: the control, in which nothing is rounded away"
_KEPT = "the same with weight decay to the end: the control, in which the margin stays small"
_EPSILON = "Adam's epsilon 1e-5: the known counter-example, a loss of accuracy without traps"


def _quick_arms(base: Recipe) -> tuple[Recipe, ...]:
    return (
        base,
        replace(base, arm="decay", purpose=_DECAYED, decay=_after_grokking(base, 6_000, 12_000)),
        replace(base, arm="wd0.1", purpose=_HARD, weight_decay=0.1),
    )


def _full_arms(base: Recipe) -> tuple[Recipe, ...]:
    return (
        base,
        replace(base, arm="decay", purpose=_DECAYED, decay=_after_grokking(base, 20_000, 40_000)),
        replace(base, arm="wd0.01", purpose=_SOFT, weight_decay=0.01),
        replace(base, arm="wd0.1", purpose=_HARD, weight_decay=0.1),
        replace(base, arm="eps1e-5", purpose=_EPSILON, eps=1e-5),
    )


def _after_grokking(base: Recipe, first: int, last: int) -> tuple[int, int]:
    """When to decay: digits grok at about three times MNIST's steps, and would freeze before if decayed as early."""
    return (3 * first, 3 * last) if base.task == "digits" else (first, last)


def _digits(recipe: Recipe, steps: int) -> Recipe:
    return replace(recipe, task="digits", widths=(64, 200, 200, 10), test_size=0, steps=steps)


def preset(task: Task, name: PresetName) -> Preset:
    """The arms of a preset.

    The digits are easier and smaller than MNIST, so their collapse takes longer: `quick` runs five times the steps,
    at about the same cost, since an input of 64 pixels is a tenth of the work.
    """
    if task == "modular-addition":
        return _addition(name)
    if task == "composition":
        return _composition(name)
    if name == "quick":
        arms = _quick_arms(_QUICK_IMAGES if task == "mnist" else _digits(_QUICK_IMAGES, 200_000))
        return Preset("quick", task, 1, arms)
    if name == "full":
        arms = _full_arms(_FULL_IMAGES if task == "mnist" else _digits(_FULL_IMAGES, 1_000_000))
        return Preset("full", task, 3, arms)
    base = _PAPER_IMAGES if task == "mnist" else _digits(_PAPER_IMAGES, 10_000_000)
    return Preset("paper", task, 1, (base, replace(base, arm="wd0.01", purpose=_SOFT, weight_decay=0.01)))


def _addition(name: PresetName) -> Preset:
    if name == "quick":
        return Preset("quick", "modular-addition", 1, _addition_arms(_ADDITION))
    if name == "full":
        larger = replace(
            _ADDITION, modulus=113, d_model=128, d_mlp=512, train_fraction=0.22, lr=7e-3, weight_decay=0.5, steps=40_000
        )
        return Preset("full", "modular-addition", 3, _addition_arms(larger))
    slow = replace(_PAPER_ADDITION, arm="wd0", weight_decay=0.0, purpose="the paper's sizes without weight decay")
    return Preset("paper", "modular-addition", 1, (_PAPER_ADDITION, slow))


def _composition(name: PresetName) -> Preset:
    if name == "paper":
        return Preset("paper", "composition", 1, (_PAPER_COMPOSITION,))
    arms = (_COMPOSITION, replace(_COMPOSITION, arm="steady", purpose=_STEADY, decay=None))
    if name == "quick":
        return Preset("quick", "composition", 1, arms)
    without = replace(_COMPOSITION, arm="wd0", purpose=_UNDECAYED, decay=None, weight_decay=0.0)
    return Preset("full", "composition", 3, tuple(_longer(arm, 40_000) for arm in (*arms, without)))


def _longer(recipe: Recipe, steps: int) -> Recipe:
    return replace(recipe, steps=steps, checkpoint_every=1_000)


def _addition_arms(base: Recipe) -> tuple[Recipe, ...]:
    return (
        base,
        replace(base, arm="float64", purpose=_EXACT, dtype="float64"),
        replace(base, arm="decay-kept", purpose=_KEPT, weight_decay_until=None),
    )
