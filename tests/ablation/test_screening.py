"""One backward pass scores every entry: the gradients are autograd's through the whole model, and places are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.ablation.conftest import save_model

from llmtrap.ablation.screening import screen
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import open_checkpoint
from llmtrap.demo.checkpoint import write_demo_checkpoint
from llmtrap.errors import UnsupportedError

TOKENS = torch.randint(0, 130, (3, 12), generator=torch.Generator().manual_seed(1))


def reference(folder: Path) -> dict[str, torch.Tensor]:
    """½ δ² F of every layer's matrix, by autograd through the library's whole model with the same draws."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(0)
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for k in range(len(TOKENS)):
        logs = torch.log_softmax(model(input_ids=TOKENS[k : k + 1]).logits, -1)[0]
        drawn = torch.multinomial(logs.detach().exp(), 1, generator=generator)
        model.zero_grad()
        logs.gather(-1, drawn).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[name] += parameter.grad.square()
    scores = {}
    for name, p in model.named_parameters():
        # The experts' biases, one row each, are no matrices
        if p.dim() > 1 and (".layers." in name or ".h." in name) and not name.endswith("bias"):
            values = p.detach()
            scores[name] = (values - values.mean((-2, -1), keepdim=True)).square() * squares[name] / TOKENS.numel() / 2
    return scores


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_oss", "gemma3"])
def test_scores_are_those_of_autograd_through_the_whole_model(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    save_model(name, folder)
    found = screen(StreamedModel(open_checkpoint(str(folder))), TOKENS, 50, 0)
    expected = reference(folder)
    assert [entry.score for entry in found] == sorted((entry.score for entry in found), reverse=True)
    best = torch.cat([score.reshape(-1) for score in expected.values()]).topk(50).values
    np.testing.assert_allclose([entry.score for entry in found], best.numpy(), rtol=1e-3)
    for entry in found:
        score = next(
            s
            for n, s in expected.items()
            if n.removeprefix("transformer.").endswith(entry.place.tensor) or entry.place.tensor == n
        )
        at: Any = score if entry.place.index is None else score[entry.place.index]
        assert float(at[entry.row, entry.column]) == pytest.approx(entry.score, rel=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_oss", "mixtral", "demo"])
def test_every_entry_of_a_parameter_is_found_where_it_is_stored(name: str, tmp_path: Path) -> None:
    if name == "demo":
        write_demo_checkpoint(tmp_path / name)
    else:
        save_model(name, tmp_path / name)
    checkpoint = open_checkpoint(str(tmp_path / name))
    model = StreamedModel(checkpoint)
    stored = {(m.tensor, m.index): m for m in checkpoint.matrices}
    rng = np.random.default_rng(0)
    tried = set()
    for parameter, group in model.table.groups.items():
        inside = ".1." in parameter and not parameter.endswith("bias")
        tensor = model.table.make(group, model.model)[parameter] if inside else None
        if tensor is None or tensor.dim() < 2:
            continue
        for position in rng.integers(tensor.numel(), size=5).tolist():
            place, row, column = model.table.origin(group, model.model, parameter, position)
            matrix = stored[place.tensor, place.index]
            assert matrix.read(checkpoint.source)[row, column] == tensor.reshape(-1)[position]
            tried.add(place.tensor)
    assert len(tried) > 3
    assert (name not in ("gpt_oss", "mixtral", "demo")) or any("experts" in tensor for tensor in tried)


def test_what_cannot_be_screened_is_refused(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model("bert", tmp_path / "bert")
    with pytest.raises(UnsupportedError, match="predicts no token"):
        screen(StreamedModel(open_checkpoint(str(tmp_path / "bert"))), TOKENS, 5, 0)
    monkeypatch.setattr("llmtrap.ablation.screening.MOST_IN_A_LAYER", 1000)
    with pytest.raises(UnsupportedError, match="too large to be held"):
        screen(StreamedModel(open_checkpoint(str(llama))), TOKENS, 5, 0)
