"""How often a head is read: as often as its logits fill what is made at one time, and all predictions are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from llmtrap.ablation.layer_gate import Variant
from llmtrap.ablation.stand_ins import StreamedLinear
from llmtrap.ablation.stored_values import Place
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import open_checkpoint

TOKENS = torch.randint(0, 130, (2, 20), generator=torch.Generator().manual_seed(1))
NAMES = ("a", "b", "c")


@pytest.mark.parametrize(("names", "rows", "calls"), [((), 40, 1), ((), 10, 2), (NAMES, 80, 1), (NAMES, 16, 5)])
def test_a_streamed_head_is_read_as_seldom_as_its_logits_fit(
    names: Sequence[str], rows: int, calls: int, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmtrap.ablation.stand_ins.HELD_PARAMETERS", 100)
    monkeypatch.setattr("llmtrap.ablation.outcome._LOGITS_AT_ONCE", rows * 130)
    model = StreamedModel(open_checkpoint(str(llama)))
    head = model.model.get_output_embeddings()
    assert isinstance(head, StreamedLinear)
    place = Place("model.layers.1.mlp.down_proj.weight")
    variants = [Variant(name, {place: lambda matrix, by=k: matrix * (2 + by)}, 1) for k, name in enumerate(names)]
    with model.run(TOKENS, variants) as outcome:
        expected = {name: torch.log_softmax(outcome.logits(name), -1)[1] for name in (None, *names)}
        counted: list[int] = []
        head.register_forward_hook(lambda *_: counted.append(1))
        found: dict[str | None, list[torch.Tensor]] = {name: [] for name in expected}
        losses: list[torch.Tensor] = []
        for predictions in outcome.predictions(names, 1):
            found[predictions.variant].append(predictions.logs)
            losses += [predictions.nll()] if predictions.variant is None else []
    assert len(counted) == calls
    for name, logs in expected.items():
        torch.testing.assert_close(torch.cat(found[name]), logs, rtol=1e-5, atol=1e-5)
    nll = torch.nn.functional.nll_loss(expected[None][:-1], TOKENS[1, 1:], reduction="none")
    torch.testing.assert_close(torch.cat(losses), nll, rtol=1e-5, atol=1e-5)
