"""Does a repair make the model predict a text better or worse? Each repair alone, and all together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llmtrap.ablation import measures
from llmtrap.ablation.candidates import place_of
from llmtrap.ablation.measures import Estimate
from llmtrap.ablation.probes import first_token, text_probe
from llmtrap.ablation.repair import Repair, RepairPlan, TextCheck
from llmtrap.ablation.run import TEXT_LENGTH, TEXT_SEQUENCES
from llmtrap.ablation.stored_values import Change, Floats, Place
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import Checkpoint, WeightMatrix

TOGETHER = "all repairs"


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

    def nll(repairs: Sequence[Repair]) -> Tensor:
        """One number a sequence; a pass of its own, since the model as it is may hold NaN."""
        with model.replaced(_changes(repairs, matrices)), model.run(probe.tokens) as outcome:
            lines = []
            for k in range(probe.tokens.shape[0]):
                logs = torch.log_softmax(outcome.logits(None, slice(k, k + 1)).float(), -1)
                lines.append(float(measures.next_token_nll(logs, probe.tokens[k : k + 1]).mean()))
        return torch.tensor(lines, dtype=torch.float64)

    repaired = nll(plan.repairs)
    checks = {TOGETHER: _check(nll([]), repaired)}
    for repair in plan.repairs:
        # Alone: all others as they are repaired, so that one broken entry does not hide what another does.
        others = [other for other in plan.repairs if other is not repair]
        checks[repair.location.name] = _check(nll(others), repaired) if others else checks[TOGETHER]
    return checks


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
