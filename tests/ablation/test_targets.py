"""Targets other than a folder of safetensors: GGUF files and adapters, run as their own libraries run them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.ablation.conftest import save_model

from llmtrap.ablation.building import build_model
from llmtrap.ablation.layer_gate import Variant
from llmtrap.ablation.stored_values import Place
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import TargetError, UnsupportedError

TOKENS = torch.randint(0, 130, (2, 16), generator=torch.Generator().manual_seed(1))
LORA = "base_model.model.model.layers.1.mlp.down_proj"


def write_gguf(path: Path, architecture: str = "llama") -> None:
    """A small Llama as llama.cpp stores it, every tensor Q8_0 or F32, drawn."""
    gguf = pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("small")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(130)
    rng = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = rng.normal(0, 0.05, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", 130, 64)
    for k in range(2):
        for name, *shape in (
            ("attn_norm", 64), ("ffn_norm", 64), ("attn_q", 64, 64), ("attn_k", 32, 64), ("attn_v", 32, 64),
            ("attn_output", 64, 64), ("ffn_gate", 96, 64), ("ffn_up", 96, 64), ("ffn_down", 64, 96),
        ):  # fmt: skip
            add(f"blk.{k}.{name}.weight", *shape)
    add("output_norm.weight", 64)
    add("output.weight", 130, 64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_the_librarys_numbers(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    whole = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="small.gguf", dtype=torch.float32
    ).eval()
    model = StreamedModel(open_checkpoint(str(tmp_path / "small.gguf")))
    with model.run(TOKENS) as outcome, torch.no_grad():
        assert torch.equal(outcome.logits(None), whole(input_ids=TOKENS).logits)


def test_a_variant_of_a_gguf_file_counts_rows_as_the_file_does(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    model = StreamedModel(open_checkpoint(str(tmp_path / "small.gguf")))

    def change(matrix: Any) -> Any:
        matrix[3, 5] = 4.0  # row 3 of llama.cpp's order is row 9 of the model's: head 0, pair 1, second half
        return matrix

    place = Place("blk.1.attn_q.weight")
    whole = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="small.gguf", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        whole.model.layers[1].self_attn.q_proj.weight[9, 5] = 4.0
        expected = whole(input_ids=TOKENS).logits
    with model.run(TOKENS, [Variant("x", {place: change}, model.layer_of(place.tensor))]) as outcome:
        torch.testing.assert_close(outcome.logits("x"), expected, rtol=1e-5, atol=1e-5)
    group = model.table.groups["model.layers.1.self_attn.q_proj.weight"]
    assert model.table.origin(group, model.model, group.target, 9 * 64 + 5) == (place, 3, 5)


def test_a_gguf_file_of_an_architecture_without_a_mapping_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf", "rwkv6")
    with pytest.raises(UnsupportedError, match="rwkv6"):
        StreamedModel(open_checkpoint(str(tmp_path / "small.gguf")))


def adapter_of(base: Path, folder: Path, extra: dict[str, torch.Tensor] | None = None) -> Path:
    """A LoRA adapter of rank 2 on one matrix, as peft names its tensors."""
    torch.manual_seed(5)
    folder.mkdir()
    tensors = {f"{LORA}.lora_A.weight": torch.randn(2, 96), f"{LORA}.lora_B.weight": torch.randn(64, 2)}
    save_file(tensors | (extra or {}), folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    return folder


def test_an_adapter_is_run_on_its_base(llama: Path, tmp_path: Path) -> None:
    folder = adapter_of(llama, tmp_path / "adapter")
    model = StreamedModel(open_checkpoint(str(folder)))
    with model.run(TOKENS) as outcome:
        logits = outcome.logits(None)
    factors = load_file(folder / "adapter_model.safetensors")
    whole = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    with torch.no_grad():
        update = 2 * factors[f"{LORA}.lora_B.weight"] @ factors[f"{LORA}.lora_A.weight"]
        whole.model.layers[1].mlp.down_proj.weight += update
        expected = whole(input_ids=TOKENS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_changes_more_than_matrices_is_refused(llama: Path, tmp_path: Path) -> None:
    extra = {"base_model.model.model.norm.weight": torch.ones(64)}
    folder = adapter_of(llama, tmp_path / "adapter", extra)
    with pytest.raises(UnsupportedError, match=r"more than the base's matrices: .*norm"):
        StreamedModel(open_checkpoint(str(folder)))


def test_a_head_of_its_own_on_a_tied_model_is_refused(tmp_path: Path) -> None:
    save_model("qwen2", tmp_path / "qwen2")
    extra = {"base_model.model.lm_head.weight": torch.randn(130, 64)}
    folder = adapter_of(tmp_path / "qwen2", tmp_path / "adapter", extra)
    with pytest.raises(UnsupportedError, match="unembedding"):
        StreamedModel(open_checkpoint(str(folder)))


def test_a_gguf_file_that_is_not_on_this_machine_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    checkpoint = open_checkpoint(str(tmp_path / "small.gguf"))
    identity = replace(checkpoint.catalogue.identity, kind="hub")
    away = replace(checkpoint, catalogue=replace(checkpoint.catalogue, identity=identity))
    with pytest.raises(TargetError, match="this machine's disk"):
        StreamedModel(away)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_attention_heads": 3}, r"transformers builds no model of it \("),
        ({"hidden_size": "##[x]\x1b"}, r"transformers builds no model of it \("),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is over 2,000"),
        ({"num_local_experts": 10**9}, "num_local_experts is over 10,000"),
    ],
    ids=str,
)
def test_a_configuration_of_no_model_is_blamed(llama: Path, changed: dict[str, object], words: str) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(UnsupportedError, match=rf"^config\.json: {words}") as raised:
        build_model(open_checkpoint(str(llama)))
    assert raised.value.message.isprintable()
