"""Positive controls: plant each fault in a copy of a real checkpoint and see which rule finds it.

    python -m studies.gate.controls

Prints the table of docs/gate-studies.md. It needs the real weights that the tests use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import edits
from tests.support.real_weights import checkpoint

from llmtrap.errors import LlmtrapError
from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate


@dataclass(frozen=True)
class Control:
    """One fault in one checkpoint, and what the gate must say of it: a rule and an exit code."""

    checkpoint: str
    fault: str
    plant: Callable[[Path], None]
    rule: str
    exit_code: int


@dataclass(frozen=True)
class Seen:
    """What the gate said: its exit code, the rules of its errors, and the first message."""

    exit_code: int
    rules: tuple[str, ...]
    message: str


# One matrix of each: a mixer of middle size without traps of its own.
MATRICES = {
    "minilm": "encoder.layer.5.intermediate.dense.weight",
    "smollm2_bf16": "model.layers.12.mlp.up_proj.weight",
    "smollm2_mxfp4": "model.layers.3.mlp.experts.gate_up_proj",
}
LAST_SHARD = {
    "smollm2_bf16": "model-00003-of-00003.safetensors",
    "smollm2_mxfp4": "model-00002-of-00002.safetensors",
}
ENTRY_SIZES = (1.1, 1.2, 1.3, 1.4, 1.6)
BLOCK_SIZES = (0.4, 0.6, 0.8)
# Rounding to MXFP4 takes most of a small shift away again: small values round to zero whatever is added to them.
MEAN_SHIFTS = {"minilm": 2.0, "smollm2_bf16": 2.0, "smollm2_mxfp4": 8.0}
EXPERT = 2


def controls(name: str) -> Iterator[Control]:
    """Every control of one checkpoint."""

    def change(change_: edits.Edit) -> Callable[[Path], None]:
        if name == "smollm2_mxfp4":
            return lambda folder: edits.edit_mxfp4(folder, MATRICES[name], EXPERT, change_)
        return lambda folder: edits.edit(folder, MATRICES[name], change_)

    for times in ENTRY_SIZES:
        yield Control(name, f"one entry of {times} limits", change(edits.one_entry(times)), "LT001", 1)
    shift = MEAN_SHIFTS[name]
    yield Control(name, f"mean shift of {shift:g} limits", change(edits.mean_shift(shift)), "LT001", 1)
    for times in BLOCK_SIZES:
        block = change(edits.large_block(24, times))
        yield Control(name, f"24 × 24 entries of {times} limits", block, "LT001", 1)
    if name == "smollm2_mxfp4":
        broken: Callable[[Path], None] = lambda folder: edits.break_scale(folder, MATRICES[name], EXPERT)  # noqa: E731
        yield Control(name, "one NaN scale", broken, "LT005", 1)
    else:
        yield Control(name, "one NaN", change(edits.not_a_number()), "LT005", 1)
    yield Control(name, "layer × 3", change(edits.scaled(3.0)), "LT009", 1)
    yield Control(name, "layer replaced by noise", change(edits.replaced_by_noise()), "LT010", 1)
    if name in LAST_SHARD:
        yield Control(name, "a shard is missing", lambda folder: edits.drop(folder, LAST_SHARD[name]), "", 2)


def see(target: Path, base: Path, journal: Path | None) -> Seen:
    """Gate a target under the default policy."""
    try:
        found = gate(str(target), str(base), LoadedPolicy(Policy()), GateOptions(workers=1, journal=journal)).judgement
    except LlmtrapError as error:
        return Seen(error.exit_code, (), error.message)
    rules = tuple(sorted({finding.rule for finding in found.errors}))
    return Seen(found.exit_code, rules, found.errors[0].message if found.errors else found.headline)


def run(control: Control, folder: Path, journal: Path | None) -> Seen:
    """Plant a fault in a copy and gate it."""
    base = checkpoint(control.checkpoint)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        copy = edits.copy_of(base, Path(scratch) / "copy")
        control.plant(copy)
        return see(copy, base, journal)


def main() -> None:
    """Run every control and print the table."""
    print("| checkpoint | fault | rules | exit code | |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        journal = Path(scratch) / "journal"
        for name in MATRICES:
            for control in controls(name):
                seen = run(control, Path(scratch), journal)
                met = seen.exit_code == control.exit_code and (not control.rule or control.rule in seen.rules)
                print(
                    f"| {name} | {control.fault} | {', '.join(seen.rules) or '–'} | {seen.exit_code} "
                    f"| {'' if met else 'not found: '}{seen.message[:150]} |",
                    flush=True,
                )
        seen = see(checkpoint("minilm"), checkpoint("smollm2_bf16"), journal)
        print(f"| minilm | against SmolLM2 | {', '.join(seen.rules)} | {seen.exit_code} | {seen.message[:150]} |")


if __name__ == "__main__":
    main()
