"""A check of a run's weights, without a trainer."""

from __future__ import annotations

import tempfile

import pytest
import torch
from tests.support.tiny_llama import tiny_llama

from llmtrap.integrations.monitor import TrapMonitor
from llmtrap.integrations.options import TrapOptions


@pytest.mark.parametrize("alone", [1.0, 0.0], ids=["in this process", "in a worker"])
def test_the_copy_is_audited_where_it_lies(monkeypatch: pytest.MonkeyPatch, alone: float) -> None:
    def broken(*_: object, **__: object) -> str:
        raise AssertionError("a check writes nothing")

    monkeypatch.setattr(tempfile, "mkdtemp", broken)
    monkeypatch.setattr("llmtrap.integrations.checking.ALONE_SECONDS", alone)
    model = tiny_llama(tied=True)
    monitor = TrapMonitor(TrapOptions())
    assert monitor.check(0, model)
    monitor.wait()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] += 8.0
    assert monitor.check(5, model)
    first, second = monitor.finish()
    assert (first.measured, first.new, first.failed) == (first.matrices, (), 0)
    assert second.measured == 1
    assert [trap.words.partition(",")[0] for trap in second.new] == ["layers.0.mlp.up (entry [3"]
