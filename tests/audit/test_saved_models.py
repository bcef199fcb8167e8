"""Small models of transformers with random weights, as `save_pretrained` writes them: all but vectors is measured.

Experts in stacks, gates of block-diagonal matrices, convolutions: what an audit is most likely to pass over.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import llmtrap
from llmtrap.audit import AuditSettings, make_plan
from llmtrap.checkpoint import open_checkpoint
from llmtrap.cli.audit import is_whole
from llmtrap.report.coverage import count_coverage, is_partial
from llmtrap.report.document import Amount, SkippedTensor

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
architectures = pytest.importorskip("tests.support.architectures")

EVERY = 1 if os.environ.get("LLMTRAP_EVERY_ARCHITECTURE") else 60
LEAST = 220 if EVERY == 1 else 1  # transformers 5.24 saves some 230

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300,
    "max_position_embeddings": 128, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OWN = {
    "recurrent_gemma": {"lru_width": 64, "attention_window_size": 32},
    "granitemoe": {},
    "jetmoe": {"kv_channels": 16},
    "qwen3_moe": {},
    "mixtral": {},
    "mamba": {"state_size": 8},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention"]},
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
}


@pytest.mark.parametrize("model_type", OWN)
def test_all_but_vectors_of_a_saved_model_is_measured(tmp_path: Path, model_type: str) -> None:
    config = transformers.CONFIG_MAPPING[model_type](**(SIZES | OWN[model_type]))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)

    report = llmtrap.audit(str(tmp_path), AuditSettings(alpha=False, traps="certify"))

    counts = report.coverage.counts
    assert counts is not None
    left_out = {item.tensor: item for item in report.coverage.skipped}
    sizes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}  # tied ones come once
    tables = {tensor for tensor, item in left_out.items() if item.kind == "table"}
    assert {len(sizes[name]) for name in tables} <= {2}
    vectors = {n for n, shape in sizes.items() if n.endswith("bias") or sum(side > 1 for side in shape) < 2}
    weights = [math.prod(shape) for name, shape in sizes.items() if name not in vectors | tables]
    assert counts.measured.parameters == sum(weights)
    assert counts.table.parameters == sum(math.prod(sizes[name]) for name in tables)
    assert counts.one_dimensional.parameters == sum(math.prod(sizes[name]) for name in vectors)
    assert (counts.unmeasured.count, counts.unreadable.count) == (0, 0)
    assert is_whole(report)
    assert report.summary.level != "partly_measured"


def test_nothing_but_tables_and_vectors_of_any_saved_model_is_passed_over(tmp_path: Path) -> None:
    """As an audit would count it: every one is measured, or said to be measured in part."""
    names = [name for name in architectures.names() if name.startswith(("causal-", "vision-"))][::EVERY]
    passed_over, saved = {}, 0
    for name in names:
        if not architectures.save_small(name, tmp_path / name):
            continue
        plan = make_plan(open_checkpoint(str(tmp_path / name)), AuditSettings())
        measured = Amount(count=len(plan.tasks), parameters=sum(task.matrix.size for task in plan.tasks))
        coverage = count_coverage(
            len(plan.tasks), measured, [SkippedTensor(**asdict(item)) for item in plan.skipped], ()
        )
        assert coverage.counts is not None
        held = measured.parameters + coverage.counts.unmeasured.parameters + coverage.counts.unreadable.parameters
        if measured.parameters < 0.98 * held and not is_partial(coverage):
            passed_over[name] = (measured.parameters, held)
        shutil.rmtree(tmp_path / name)
        saved += 1
    assert passed_over == {}
    assert saved >= LEAST
