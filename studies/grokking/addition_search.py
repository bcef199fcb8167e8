"""Look for a collapse of modular addition at the paper's sizes, p = 113, with several optimisers, and report each.

The papers report an anti-grokking phase for this task (arXiv 2602.02859, appendix H) but give no learning rate, weight
decay, training fraction, batch or length. This tries some, follows each as `llmtrap calibrate` does, and writes what
was seen, whatever it was.

    python -m studies.grokking.addition_search OUT [--steps 20000] [--only NAME …] [--workers N] [--report-only]

Killed, the same command carries on, and a larger number of steps makes a run longer. OUT gets the runs, and
`OUT/addition-search.md` every trajectory; `--report-only` writes that of the runs as far as they have come.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llmtrap.calibrate.document import FailedRun
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.phases import PHASES, STILL_FITTED, Phase
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.settings import PlannedRun
from llmtrap.calibrate.workers import Workers, read_run, worker_count

# Rows of a trajectory, about.
_SHOWN = 9
# Test accuracy that a recipe must reach to be said to grok: a peak of 0.6 is no grokking.
_GROKKED = 0.95


def recipes(steps: int) -> tuple[Recipe, ...]:
    """What is tried: small batches first, as a step of 128 sums costs a ninth of one on the whole training set."""
    nanda = preset("modular-addition", "paper").arms[0]
    squared = replace(
        nanda, loss="mse", weight_decay=0.0, batch=128, betas=(0.9, 0.99), warmup=1_000, steps=steps, purpose=""
    )
    entropy = replace(squared, loss="cross-entropy")
    return (
        replace(squared, arm="mse-lr5e-3", lr=5e-3),
        replace(squared, arm="mse-lr1e-2-b512", lr=1e-2, batch=512),
        # Adam never stops at a loss of 0 with so small an epsilon: spikes of the loss (slingshots) take its place.
        replace(entropy, arm="ce-slingshot", lr=3e-3, eps=1e-30, dtype="float64"),
        # PyTorch's own defaults, which a paper that states no optimiser may well have used.
        replace(entropy, arm="ce-defaults", lr=1e-3, weight_decay=0.01, betas=(0.9, 0.999), warmup=0),
        replace(entropy, arm="ce-wd0.1", lr=3e-3, weight_decay=0.1, betas=(0.9, 0.98)),
        replace(entropy, arm="ce-wd0", lr=3e-3),
        replace(squared, arm="mse-lr5e-3-x4", lr=5e-3, init_scale=4.0),
        replace(squared, arm="mse-lr5e-3-f50", lr=5e-3, train_fraction=0.5),
        replace(squared, arm="mse-lr1e-2", lr=1e-2),
        replace(entropy, arm="ce-wd1", lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98), warmup=10, batch=512),
        replace(nanda, arm="nanda-full-batch", steps=steps // 4),
    )


def lines(run: Run) -> list[str]:
    """One run as a table of some of its checkpoints, from the first that fits its data."""
    recipe = run.recipe
    found = [
        f"## {recipe.arm}",
        "",
        f"p {recipe.modulus}, fraction {recipe.train_fraction}, {recipe.loss}, AdamW lr {recipe.lr:g} "
        f"({recipe.betas[0]}, {recipe.betas[1]}) eps {recipe.eps:g} wd {recipe.weight_decay:g}, batch "
        f"{recipe.batch or 'full'}, warm-up {recipe.warmup}, init × {recipe.init_scale:g}, {recipe.dtype}; "
        f"{run.last.step:,} steps in {run.last.seconds:.0f} CPU seconds.",
        "",
        "| step | train | test | l2 | mean α | traps | centred |",
        "|---|---|---|---|---|---|---|",
    ]
    learnt = next((i for i, m in enumerate(run.checkpoints) if m.train_accuracy >= 0.3), -3)
    points = run.checkpoints[learnt:]
    stride = -(-len(points) // _SHOWN)
    chosen = {m.step: m for m in (*points[::stride], points[-1], run.peak)}
    shown = [chosen[step] for step in sorted(chosen)]
    for m in shown:
        alphas = [layer.alpha.value for layer in m.layers if layer.alpha.value is not None]
        mean = f"{sum(alphas) / len(alphas):.2f}" if alphas else "-"
        traps, centred = sum(layer.traps.count for layer in m.layers), run.centred(m)
        found.append(
            f"| {m.step:,} | {m.train_accuracy:.3f} | {m.test_accuracy:.3f} | {m.l2:.1f} "
            f"| {mean} | {traps} | {centred} |"
        )
    return [*found, "", f"Phases seen: {', '.join(seen(run)) or 'none'}.", ""]


def seen(run: Run) -> list[Phase]:
    """The phases of a run; what comes after a peak that is no grokking is no collapse of it either."""
    phases = PHASES if run.peak.test_accuracy >= _GROKKED else PHASES[:1]
    return [phase for phase in phases if run.phase(phase)]


def summary(followed: Sequence[Run]) -> list[str]:
    """All runs in one table: what they reached, and how far test accuracy fell while the data stayed fitted."""
    rows = [
        "| recipe | steps | largest gap before the peak | test ≥ 0.95 at | peak | lowest since, train ≥ 0.95 "
        "| end: train, test | l2 at 0, end | traps, centred at the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in followed:
        peak, last, first = run.peak, run.last, run.checkpoints[0]
        gap = max((m.train_accuracy - m.test_accuracy for m in run.phase("pre-grok")), default=None)
        known = next((f"{m.step:,}" for m in run.checkpoints if m.test_accuracy >= _GROKKED), "never")
        since = [m for m in run.checkpoints if m.step > peak.step and m.train_accuracy >= STILL_FITTED]
        low = min(since, key=lambda m: m.test_accuracy, default=None)
        rows.append(
            f"| {run.recipe.arm} | {last.step:,} | {'none' if gap is None else f'{gap:.2f}'} | {known} "
            f"| {peak.test_accuracy:.3f} at {peak.step:,} "
            f"| {'-' if low is None else f'{low.test_accuracy:.3f} at {low.step:,}'} "
            f"| {last.train_accuracy:.3f}, {last.test_accuracy:.3f} | {first.l2:.0f}, {last.l2:.0f} "
            f"| {sum(layer.traps.count for layer in last.layers)}, {run.centred(last)} |"
        )
    return [*rows, ""]


def report(runs: tuple[PlannedRun, ...], failed: tuple[FailedRun, ...], out: Path) -> None:
    """Write every trajectory, and the claim that they allow."""
    followed = [found for run in runs if (found := read_run(run)) is not None]
    collapsed = [h.recipe.arm for h in followed if "anti-grok" in seen(h)]
    head = [
        "# Modular addition at p = 113: was a collapse found?",
        "",
        f"{len(followed)} recipes followed, one seed each. "
        + (f"Anti-grokking was seen in: {', '.join(collapsed)}." if collapsed else "Anti-grokking was seen in none."),
        *(f"{item.name} diverged: {item.error}." for item in failed),
        "",
        *summary(followed),
    ]
    text = "\n".join(head + [line for run in followed for line in lines(run)])
    (out / "addition-search.md").write_text(text)
    print(text)


def main() -> None:
    """Follow the recipes and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    chosen = [recipe for recipe in recipes(arguments.steps) if not arguments.only or recipe.arm in arguments.only]
    train = not arguments.report_only
    runs = tuple(PlannedRun(recipe, 0, arguments.out / "runs" / recipe.arm, None, "cpu", train) for recipe in chosen)
    with Workers(
        worker_count(runs, arguments.workers), lambda event: print(event, flush=True) if event.finished else None
    ) as workers:
        failed = workers.follow(runs)
    report(runs, failed, arguments.out)


if __name__ == "__main__":
    main()
