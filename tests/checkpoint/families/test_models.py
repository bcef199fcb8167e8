"""Every family's table against real transformers models: names as `save_pretrained` writes them, splits as they run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llmtrap.checkpoint import Checkpoint, open_checkpoint

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 32,
}  # fmt: skip
EXPERTS = {"num_local_experts": 3, "num_experts_per_tok": 1}
QWEN_EXPERTS = {"num_experts": 3, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
WITHOUT_KV = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
ENCODER = {key: value for key, value in WITHOUT_KV.items() if key != "num_hidden_layers"} | {"num_hidden_layers": 1}
SEQ2SEQ = {
    "vocab_size": 64, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "pad_token_id": 0,
}  # fmt: skip

ENDS = "embedding unembedding "
ATTENTION = "layers.{0,1}.attention.{q,k,v,o} "
GATED = "layers.{0,1}.mlp.{gate,up,down} "
MIXTURE = "layers.{0,1}.experts.{0,1,2}.{gate,up,down} layers.{0,1}.router "
STACKED = "layers.{0,1}.experts.{0,1,2}.{gate_up,down} layers.{0,1}.router "
BERT = "embedding position embedding.token_type layers.0.attention.{q,k,v,o} layers.0.mlp.{up,down} "
BOTH_SIDES = (
    "{encoder,decoder}.layers.0.attention.{q,k,v,o} decoder.layers.0.cross_attention.{q,k,v,o} "
    "{encoder,decoder}.layers.0.mlp.{up,down} "
)

# model class, configuration (class, values), family, ids, other names of the embedding
MODELS: dict[str, tuple[str, str, dict[str, Any], str, str, str]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL, "llama", ENDS + ATTENTION + GATED, ""),
    "mistral": ("MistralForCausalLM", "MistralConfig", SMALL, "mistral", ENDS + ATTENTION + GATED, ""),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SMALL, "qwen2", ENDS + ATTENTION + GATED, ""),
    "gemma2": (
        "Gemma2ForCausalLM", "Gemma2Config", {**SMALL, "head_dim": 8}, "gemma2",
        "embedding " + ATTENTION + GATED, "unembedding",
    ),
    "phi3": (
        "Phi3ForCausalLM", "Phi3Config", {**SMALL, "pad_token_id": 0}, "phi3",
        ENDS + "layers.{0,1}.attention.{qkv,o} layers.{0,1}.mlp.{gate_up,down}", "",
    ),
    "phi": ("PhiForCausalLM", "PhiConfig", SMALL, "phi", ENDS + ATTENTION + "layers.{0,1}.mlp.{up,down}", ""),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", SMALL | EXPERTS, "mixtral", ENDS + ATTENTION + MIXTURE, ""),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM", "Qwen3MoeConfig", SMALL | QWEN_EXPERTS | {"head_dim": 8}, "qwen3_moe",
        ENDS + ATTENTION + MIXTURE, "",
    ),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM", "Qwen2MoeConfig", SMALL | QWEN_EXPERTS | {"shared_expert_intermediate_size": 24},
        "qwen2_moe",
        ENDS + ATTENTION + MIXTURE + "layers.{0,1}.shared_experts.{gate,up,down,router}", "",
    ),
    "olmoe": ("OlmoeForCausalLM", "OlmoeConfig", SMALL | QWEN_EXPERTS, "olmoe", ENDS + ATTENTION + MIXTURE, ""),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM", "DeepseekV3Config",
        SMALL | {"num_key_value_heads": 4, "n_routed_experts": 3, "n_group": 1, "topk_group": 1,
                 "num_experts_per_tok": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "q_lora_rank": 12,
                 "kv_lora_rank": 8,
                 "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8},
        "deepseek_v3",
        ENDS + "layers.{0,1}.attention.{q_a,q_b,kv_a,kv_b,o} layers.0.mlp.{gate,up,down} layers.1.router "
        "layers.1.experts.{0,1,2}.{gate,up,down} layers.1.shared_experts.{gate,up,down}", "",
    ),
    "gpt_oss": (
        "GptOssForCausalLM", "GptOssConfig", SMALL | EXPERTS | {"head_dim": 8}, "gpt_oss",
        ENDS + ATTENTION + STACKED, "",
    ),
    "llama4": (
        "Llama4ForCausalLM", "Llama4TextConfig",
        SMALL | EXPERTS
        | {"head_dim": 8, "intermediate_size_mlp": 40, "pad_token_id": 0, "interleave_moe_layer_step": 2},
        "llama4_text",
        ENDS + ATTENTION + "layers.0.mlp.{gate,up,down} layers.1.experts.{0,1,2}.{gate_up,down} layers.1.router "
        "layers.1.shared_experts.{gate,up,down}", "",
    ),
    "granitemoe": (
        "GraniteMoeForCausalLM", "GraniteMoeConfig", SMALL | EXPERTS, "granitemoe", ENDS + ATTENTION + STACKED, "",
    ),
    "dbrx": (
        "DbrxForCausalLM", "DbrxConfig",
        {"d_model": 32, "n_heads": 4, "n_layers": 1, "max_seq_len": 32, "vocab_size": 64,
         "attn_config": {"kv_n_heads": 2, "clip_qkv": 1e6, "rope_theta": 10000.0},
         "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 3, "moe_top_k": 1}},
        "dbrx",
        ENDS + "layers.0.attention.{qkv,o} layers.0.experts.{0,1,2}.{gate,up,down} layers.0.router", "",
    ),
    "gpt2": (
        "GPT2LMHeadModel", "GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 32},
        "gpt2", "embedding position layers.{0,1}.attention.{qkv,o} layers.{0,1}.mlp.{up,down}", "unembedding",
    ),
    "gpt_neox": (
        "GPTNeoXForCausalLM", "GPTNeoXConfig", WITHOUT_KV, "gpt_neox",
        ENDS + "layers.{0,1}.attention.{qkv,o} layers.{0,1}.mlp.{up,down}", "",
    ),
    "falcon": (
        "FalconForCausalLM", "FalconConfig",
        {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2, "vocab_size": 64,
         "new_decoder_architecture": True},
        "falcon", "embedding layers.0.attention.{qkv,o} layers.0.mlp.{up,down}", "unembedding",
    ),
    "bloom": (
        "BloomForCausalLM", "BloomConfig", {"hidden_size": 32, "n_layer": 1, "n_head": 4, "vocab_size": 64}, "bloom",
        "embedding layers.0.attention.{qkv,o} layers.0.mlp.{up,down}", "unembedding",
    ),
    "bert": ("BertModel", "BertConfig", ENCODER, "bert", BERT + "pooler", ""),
    "bert_mlm": ("BertForMaskedLM", "BertConfig", ENCODER, "bert", BERT + "unembedding.transform", "unembedding"),
    "roberta": (
        "RobertaForMaskedLM", "RobertaConfig", ENCODER, "roberta", BERT + "unembedding.transform", "unembedding",
    ),
    "xlm_roberta": ("XLMRobertaModel", "XLMRobertaConfig", ENCODER, "xlm-roberta", BERT + "pooler", ""),
    "mpnet": (
        "MPNetModel", "MPNetConfig", ENCODER, "mpnet",
        BERT.replace("embedding.token_type", "position.relative_attention_bias") + "pooler", "",
    ),
    "distilbert": (
        "DistilBertForMaskedLM", "DistilBertConfig",
        {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48, "vocab_size": 64}, "distilbert",
        BERT.replace("embedding.token_type ", "") + "unembedding.transform", "unembedding",
    ),
    "whisper": (
        "WhisperForConditionalGeneration", "WhisperConfig",
        {**SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 12}, "whisper",
        BOTH_SIDES + "decoder.embedding {encoder,decoder}.position encoder.convolution.{conv1,conv2}", "unembedding",
    ),
    "bart": (
        "BartForConditionalGeneration", "BartConfig", {**SEQ2SEQ, "max_position_embeddings": 32}, "bart",
        BOTH_SIDES + "embedding {encoder,decoder}.position", "unembedding",
    ),
    "t5": (
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 1,
         "num_heads": 2},
        "t5", BOTH_SIDES + "embedding {encoder,decoder}.layers.0.position", "unembedding",
    ),
}  # fmt: skip


def spelled_out(ids: str) -> list[str]:
    """`a.{x,y}` stands for a.x and a.y."""
    found = []
    for word in ids.split():
        parts = [part[1:-1].split(",") if part[0] == "{" else [part] for part in re.findall(r"\{[^}]*\}|[^{]+", word)]
        found += ["".join(choice) for choice in itertools.product(*parts)]
    return sorted(found)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()


def build(name: str) -> torch.nn.Module:
    model, config, values, *_ = MODELS[name]
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**values))


def saved(model: torch.nn.Module, folder: Path, *, split_fused: bool = False) -> Checkpoint:
    model.save_pretrained(folder)
    return open_checkpoint(str(folder), split_fused=split_fused)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_has_these_matrices(name: str, tmp_path: Path) -> None:
    checkpoint = saved(build(name), tmp_path)
    *_, family, ids, other = MODELS[name]
    assert checkpoint.family == family
    assert sorted(matrix.id for matrix in checkpoint.matrices) == spelled_out(ids)
    aliases = {matrix.id: matrix.aliases for matrix in checkpoint.matrices if matrix.aliases}
    assert aliases == ({"decoder.embedding" if name == "whisper" else "embedding": (other,)} if other else {})
    for matrix in checkpoint.matrices:
        numbers = [int(part) for part in matrix.id.split(".") if part.isdigit()]
        assert numbers == [number for number in (matrix.layer, matrix.expert) if number is not None]
        assert matrix.id.endswith(matrix.role.rpartition(".")[2])
    covered = {tensor for matrix in checkpoint.matrices for tensor in matrix.tensors}
    skipped = [item.tensor for item in checkpoint.skipped]
    assert sorted([*covered, *skipped]) == sorted(checkpoint.catalogue.tensors)

    if name == "dbrx":
        return  # only the configuration says how many experts lie one below the other
    (tmp_path / "config.json").unlink()
    by_names = open_checkpoint(str(tmp_path))
    assert [matrix.id for matrix in by_names.matrices if matrix.expert is None] == [
        matrix.id for matrix in checkpoint.matrices if matrix.expert is None
    ]


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "gpt_oss", "whisper", "gpt2"])
def test_the_bytes_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    model = build(name)
    checkpoint = saved(model, tmp_path)
    stored = {}
    for file in tmp_path.glob("*.safetensors"):
        from safetensors.torch import load_file  # noqa: PLC0415

        stored |= load_file(file)
    for matrix in checkpoint.matrices:
        whole = stored[matrix.tensor].float().numpy()
        expected = (whole if matrix.index is None else whole[matrix.index]).reshape(matrix.shape)
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected)


def _probe(model: torch.nn.Module, fused: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Run one token at position 0, where rotary embeddings turn nothing, and keep what reaches attention."""
    seen: dict[str, torch.Tensor] = {}

    def attend(module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, **__: Any) -> Any:
        if not {"q", "k", "v"} & set(seen):
            seen.update(q=q, k=k, v=v)
        return v.repeat_interleave(q.shape[1] // v.shape[1], dim=1).transpose(1, 2), None

    transformers.AttentionInterface.register("probe", attend)
    model.set_attn_implementation("probe")
    hook = fused.register_forward_pre_hook(lambda _module, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        model(torch.tensor([[3]]), use_cache=False)
    hook.remove()
    return seen


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("gpt2", "transformer.h.0.attn.c_attn"),
        ("phi3", "model.layers.0.self_attn.qkv_proj"),
        ("gpt_neox", "gpt_neox.layers.0.attention.query_key_value"),
        ("dbrx", "transformer.blocks.0.norm_attn_norm.attn.Wqkv"),
    ],
)
def test_split_attention_gives_what_the_model_computes(name: str, module: str, tmp_path: Path) -> None:
    model = build(name).eval()
    checkpoint = saved(model, tmp_path, split_fused=True)
    seen = _probe(model, model.get_submodule(module))
    parts = {matrix.role: matrix for matrix in checkpoint.matrices if matrix.layer == 0}
    for part in "qkv":
        weight = torch.from_numpy(parts[f"attention.{part}"].read(checkpoint.source))
        weight = weight if parts[f"attention.{part}"].columns is not None else weight.T
        computed = (seen["x"] @ weight).reshape(-1)
        torch.testing.assert_close(computed, seen[part].transpose(1, 2).reshape(-1), rtol=1e-4, atol=1e-6)


def test_the_experts_of_dbrx_are_the_models_own_view_of_its_rows(tmp_path: Path) -> None:
    model = build("dbrx")
    checkpoint = saved(model, tmp_path)
    stored = model.transformer.blocks[0].ffn.experts.mlp
    for part, name in (("gate", "w1"), ("up", "v1"), ("down", "w2")):
        own = getattr(stored, name).detach().view(stored.moe_num_experts, stored.ffn_hidden_size, stored.hidden_size)
        for matrix in checkpoint.matrices:
            if matrix.role == f"experts.{part}":
                np.testing.assert_array_equal(matrix.read(checkpoint.source), own[matrix.expert].numpy())


@pytest.mark.parametrize("name", ["falcon", "bloom"])
def test_split_attention_gives_what_the_models_own_reshape_gives(name: str, tmp_path: Path) -> None:
    model = build(name).eval()
    checkpoint = saved(model, tmp_path, split_fused=True)
    attention = model.transformer.h[0].self_attention
    fused = attention.query_key_value.weight.detach().T.unsqueeze(0)  # every input unit vector at once
    reshape = attention._split_heads if name == "falcon" else attention._reshape
    own = dict(zip("qkv", reshape(fused), strict=True))
    for part in "qkv":
        (matrix,) = [matrix for matrix in checkpoint.matrices if matrix.role == f"attention.{part}"]
        heads = own[part] if name == "falcon" else own[part].transpose(1, 2)  # [1, inputs, heads, width]
        if name == "falcon" and part != "q":
            heads = heads[:, :, :: heads.shape[2] // 2]  # the model repeats each key and value head for its group
        expected = heads.reshape(32, -1).T.numpy()
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected)


def test_split_gpt_oss_gives_what_the_models_own_gate_gives(tmp_path: Path) -> None:
    model = build("gpt_oss").eval()
    checkpoint = saved(model, tmp_path, split_fused=True)
    experts = model.get_submodule("model.layers.0.mlp.experts")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * 20
    parts = {matrix.id: torch.from_numpy(matrix.read(checkpoint.source)) for matrix in checkpoint.matrices}
    for expert in range(3):
        gate, up = (x @ parts[f"layers.0.experts.{expert}.{part}"] for part in ("gate", "up"))
        gate, up = gate.clamp(max=experts.limit), up.clamp(-experts.limit, experts.limit)
        expected = experts._apply_gate(x @ experts.gate_up_proj[expert].detach())
        torch.testing.assert_close((up + 1) * gate * torch.sigmoid(gate * experts.alpha), expected)


@pytest.mark.parametrize(
    ("name", "module"), [("phi3", "model.layers.0.mlp"), ("llama4", "model.layers.1.feed_forward.experts")]
)
def test_split_gate_and_up_give_the_models_own_mlp(name: str, module: str, tmp_path: Path) -> None:
    model = build(name).eval()
    checkpoint = saved(model, tmp_path, split_fused=True)
    parts = {matrix.id: torch.from_numpy(matrix.read(checkpoint.source)) for matrix in checkpoint.matrices}
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.get_submodule(module)(x)
    if name == "phi3":
        gate, up, down = (parts[f"layers.0.mlp.{part}"].T for part in ("gate", "up", "down"))
        torch.testing.assert_close((torch.nn.functional.silu(x @ gate) * (x @ up)) @ down, expected)
    else:
        for expert in range(3):
            mine = x[2 * expert : 2 * expert + 2]
            gate, up, down = (parts[f"layers.1.experts.{expert}.{part}"] for part in ("gate", "up", "down"))
            result = (torch.nn.functional.silu(mine @ gate) * (mine @ up)) @ down
            torch.testing.assert_close(result, expected[2 * expert : 2 * expert + 2])
