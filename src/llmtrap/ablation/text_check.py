"""Does a repair make the model predict a text better or worse? Each repair alone, and all together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llmtrap.ablation.candidates import place_of
from llmtrap.ablation.layer_gate import Variant
from llmtrap.ablation.measures import Estimate
from llmtrap.ablation.outcome import Outcome
from llmtrap.ablation.probes import first_token, text_probe
from llmtrap.ablation.repair import Repair, RepairPlan, TextCheck
from llmtrap.ablation.run import TEXT_LENGTH, TEXT_SEQUENCES
from llmtrap.ablation.stored_values import Change, Floats, Place
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import Checkpoint, WeightMatrix

TOGETHER = "all repairs"
_IN_ONE_PASS = 16  # repairs tried beside each other


def check_on_text(
    checkpoint: Checkpoint, plan: RepairPlan, text: Path | None, device: str = "cpu"
) -> dict[str, TextCheck] | None:
    """Run the model with each repair beside all others, and with all, on a text.

    Returns:
        By the name of each repair's location, and under TOGETHER; None where there is no tokenizer, or no predictions.

    Raises:
        MissingExtraError: transformers is not installed.
        TargetError: the text cannot be read or is too short.
    """
    probe = text_probe(checkpoint, text, TEXT_SEQUENCES, TEXT_LENGTH, first_token(checkpoint))
    if probe is None:
        return None
    matrices = {m.id: m for m in checkpoint.matrices}
    model = StreamedModel(checkpoint, device)
    if not model.causal:
        return None

    def losses(repairs: Sequence[Repair], left_out: Sequence[Repair] = ()) -> list[Tensor]:
        """With all these repairs, and with all but each of those left out: one number a sequence."""
        changes = _changes(repairs, matrices)
        variants = []
        for one in left_out:
            place = place_of(matrices[one.location.matrix])
            others = [other for other in repairs if other is not one]
            without = _changes(others, matrices).get(place, lambda matrix: matrix)
            variants.append(Variant(one.location.name, changes | {place: without}, model.layer_of(place.tensor)))
        with model.replaced(changes), model.run(probe.tokens, variants) as outcome:
            return _losses(outcome, [variant.name for variant in variants])

    (before,) = losses([])
    # Alone: all others as they are repaired, so that one broken entry does not hide what another does.
    several = plan.repairs if len(plan.repairs) > 1 else ()
    inside = [r for r in several if model.layer_of(matrices[r.location.matrix].tensor) is not None]
    alone: dict[str, Tensor] = {}
    for group in [inside[k : k + _IN_ONE_PASS] for k in range(0, len(inside), _IN_ONE_PASS)] or [[]]:
        repaired, *without = losses(plan.repairs, group)
        alone |= {repair.location.name: loss for repair, loss in zip(group, without, strict=True)}
    checks = {TOGETHER: _check(before, repaired)}
    for repair in plan.repairs:
        others = [other for other in plan.repairs if other is not repair]
        if repair.location.name not in alone:  # the only one, or one of an embedding or a head
            alone[repair.location.name] = losses(others)[0] if others else before
        checks[repair.location.name] = _check(alone[repair.location.name], repaired)
    return checks


def _losses(outcome: Outcome, variants: Sequence[str]) -> list[Tensor]:
    """Negative log-likelihood of the model as it is and of each variant, nats a token: one number a sequence."""
    lines: dict[str | None, list[float]] = {name: [] for name in (None, *variants)}
    for k in range(outcome.tokens.shape[0]):
        parts: dict[str | None, list[Tensor]] = {name: [] for name in lines}
        for predictions in outcome.predictions(variants, k):
            parts[predictions.variant].append(predictions.nll())
        for name, found in parts.items():
            lines[name].append(float(torch.cat(found).mean()))
    return [torch.tensor(line, dtype=torch.float64) for line in lines.values()]


def _check(before: Tensor, after: Tensor) -> TextCheck:
    first, second = float(before.mean()), float(after.mean())
    if not (math.isfinite(first) and math.isfinite(second)):
        return TextCheck(first if math.isfinite(first) else None, second if math.isfinite(second) else None, None, None)
    change = Estimate.of(after - before)
    return TextCheck(first, second, change.value, change.se)


def _changes(repairs: Sequence[Repair], matrices: dict[str, WeightMatrix]) -> dict[Place, Change]:
    """Changes by place: all repairs of one matrix at once."""
    found: dict[Place, list[Repair]] = {}
    for repair in repairs:
        found.setdefault(place_of(matrices[repair.location.matrix]), []).append(repair)

    def changing(mine: Sequence[Repair]) -> Change:
        def change(matrix: Floats) -> Floats:
            for repair in mine:
                matrix[repair.location.row, repair.location.column] = repair.after
            return matrix

        return change

    return {place: changing(mine) for place, mine in found.items()}
