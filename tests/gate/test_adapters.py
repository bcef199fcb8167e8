"""LoRA adapters against the PEFT library itself: scales, patterns, orientation, merged weights, refusals."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmtrap.checkpoint import open_checkpoint, open_source
from llmtrap.checkpoint.adapted import adapt
from llmtrap.checkpoint.adapters import read_adapter, read_factors, singular_values
from llmtrap.errors import CheckpointError, LlmtrapError, UnsupportedError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

Make = Callable[[str], tuple[Path, Path, Path]]


def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=120, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def biased():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=120, tie_word_embeddings=False, attention_bias=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def convolutional():
    """The smallest Whisper: two one-dimensional convolutions before the encoder."""
    torch.manual_seed(2)
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8, vocab_size=60, max_source_positions=20,
        max_target_positions=10, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        begin_suppress_tokens=None, suppress_tokens=None,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def gpt2():
    torch.manual_seed(1)
    config = transformers.GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=100, n_positions=32)
    return transformers.GPT2LMHeadModel(config)


CASES = {
    "plain": (llama, {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]}),
    "rslora": (llama, {"r": 9, "lora_alpha": 6, "use_rslora": True, "target_modules": ["k_proj"]}),
    "patterns": (
        llama,
        {
            "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 7, r"layers\.\d\.mlp.up_proj": 3},
            "alpha_pattern": {"q_proj": 5, "model.layers.0.self_attn.v_proj": 32},
        },
    ),
    "embedding": (llama, {"r": 3, "lora_alpha": 6, "target_modules": ["embed_tokens", "lm_head"]}),
    "saved whole": (llama, {"r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "fan in, fan out": (gpt2, {"r": 4, "lora_alpha": 12, "target_modules": ["c_attn", "c_proj"],
                               "fan_in_fan_out": True}),
    "biases of its own": (
        biased, {"r": 4, "lora_alpha": 8, "lora_bias": True, "target_modules": ["q_proj", "o_proj"]},
    ),
    "convolutions": (convolutional, {"r": 3, "lora_alpha": 6, "target_modules": ["conv1", "conv2", "q_proj"],
                                     "task_type": None}),
    "DoRA, convolutions": (convolutional, {"r": 3, "lora_alpha": 6, "target_modules": ["conv1"], "use_dora": True,
                                           "task_type": None}),
    "DoRA": (llama, {"r": 4, "lora_alpha": 16, "use_dora": True, "target_modules": ["q_proj", "down_proj"]}),
    "DoRA, patterns": (
        llama,
        {
            "r": 4, "lora_alpha": 8, "use_dora": True, "use_rslora": True, "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"v_proj": 7}, "alpha_pattern": {"layers.1.self_attn.q_proj": 5},
        },
    ),
    "DoRA, fan in, fan out": (
        gpt2, {"r": 4, "lora_alpha": 12, "use_dora": True, "target_modules": ["c_attn"], "fan_in_fan_out": True},
    ),
    "DoRA, embedding": (
        llama, {"r": 3, "lora_alpha": 6, "use_dora": True, "target_modules": ["embed_tokens", "k_proj"]},
    ),
}  # fmt: skip


_made: dict[str, Path] = {}


@pytest.fixture
def make(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path, Path]]:
    """Copies of a base, an adapter and the merged model, each case made once."""

    def copies(case: str) -> tuple[Path, Path, Path]:
        if case not in _made:
            _made[case] = tmp_path_factory.mktemp("lora")
            write(_made[case], case)
        folder = shutil.copytree(_made[case], tmp_path / case)
        return folder / "base", folder / "adapter", folder / "merged"

    return copies


def write(tmp_path: Path, case: str) -> None:
    """A base, an adapter with factors that are not zero, and what PEFT makes of the two."""
    build, arguments = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about saving embeddings and the like
        base = build()
        base.save_pretrained(tmp_path / "base")
        model = peft.get_peft_model(base, peft.LoraConfig(**{"task_type": "CAUSAL_LM"} | arguments))
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(tmp_path / "adapter")
        model.merge_and_unload().save_pretrained(tmp_path / "merged")


@pytest.mark.parametrize("case", CASES)
def test_base_with_adapter_is_what_peft_merges(make: Make, case: str) -> None:
    base, adapter, merged = make(case)
    opened = open_checkpoint(str(base))
    source = open_source(str(adapter))
    adapted = adapt(opened, read_adapter(source), source)
    expected = open_checkpoint(str(merged))
    assert [m.id for m in adapted.matrices] == [m.id for m in expected.matrices]
    for mine, theirs in zip(adapted.matrices, expected.matrices, strict=True):
        np.testing.assert_allclose(mine.read(adapted.source), theirs.read(expected.source), atol=2e-6, err_msg=mine.id)
    changed = {mine.id for mine, own in zip(adapted.matrices, opened.matrices, strict=True) if mine is not own}
    truly = {
        matrix.id for matrix, other in zip(expected.matrices, opened.matrices, strict=True)
        if not np.array_equal(matrix.read(expected.source), other.read(opened.source))
    }  # fmt: skip
    assert changed == truly
    assert 0 < len(changed) < len(opened.matrices)


@pytest.mark.parametrize("case", [case for case in CASES if "DoRA" not in case])
def test_singular_values_of_the_factors_are_those_of_the_update(make: Make, case: str) -> None:
    base, adapter, merged = make(case)
    before, after = load_file(base / "model.safetensors"), load_file(merged / "model.safetensors")
    source = open_source(str(adapter))
    read = read_adapter(source)
    for pair in read.pairs:
        update = after[f"{pair.module}.weight"].astype(np.float64) - before[f"{pair.module}.weight"]
        values = singular_values(*read_factors(pair, source, read.file.name))
        update = update.reshape(len(update), -1)
        expected = np.linalg.svd(update, compute_uv=False)
        np.testing.assert_allclose(values, expected[: pair.rank], rtol=2e-4)
        assert pair.shape in (update.shape, update.shape[::-1])


@pytest.mark.parametrize("case", ["embedding", "DoRA", "DoRA, embedding", "DoRA, fan in, fan out"])
def test_an_adapted_matrix_is_read_the_same_in_any_blocks(make: Make, case: str) -> None:
    base, adapter, _ = make(case)
    source = open_source(str(adapter))
    adapted = adapt(open_checkpoint(str(base)), read_adapter(source), source)
    for matrix in adapted.matrices:
        whole = matrix.read(adapted.source)
        for entries in (1, 200, 3000):
            pieces = np.concatenate([block.copy() for block in matrix.blocks(adapted.source, entries)])
            np.testing.assert_allclose(pieces, whole, atol=1e-6)


def edited(adapter: Path, **changes: object) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return adapter


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "LOHA"}, "type LOHA"),
        ({"peft_type": "PROMPT_TUNING"}, "change no weight of their base model"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "fused experts"),
        ({"init_lora_weights": "pissa"}, "changed copy of its base"),
        ({"layer_replication": [[0, 2]]}, "layer replication"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "might never end"),
        ({"alpha_pattern": {"a?" * 40 + "a" * 40: 1}}, "might never end"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(make: Make, changes: dict[str, object], words: str) -> None:
    _, adapter, _ = make("plain")
    with pytest.raises(UnsupportedError, match=words):
        read_adapter(open_source(str(edited(adapter, **changes))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 5}, "gives rank 5, the factors have 4"),
        ({"use_dora": True}, "no magnitudes"),
        ({"lora_alpha": None}, "no lora_alpha"),
        ({"lora_alpha": "16"}, "no number"),
        ({"lora_alpha": 10**400}, "no number"),
        ({"lora_alpha": 1e308}, "no number"),
        ({"rank_pattern": [1]}, "not an object"),
        ({"alpha_pattern": {"q_(proj": 3}}, "no pattern"),
        ({"alpha_pattern": {"q_proj{99999999999}": 3}}, "no pattern"),
    ],
)
def test_a_contradictory_adapter_is_an_error(make: Make, changes: dict[str, object], words: str) -> None:
    _, adapter, _ = make("plain")
    with pytest.raises(CheckpointError, match=words):
        read_adapter(open_source(str(edited(adapter, **changes))))


def test_doras_update_says_nothing_without_the_base(make: Make) -> None:
    _, adapter, _ = make("DoRA")
    source = open_source(str(adapter))
    read = read_adapter(source)
    with pytest.raises(UnsupportedError, match=r"DoRA.*with its base"):
        read_factors(read.pairs[0], source, read.file.name)


def test_a_factor_without_its_partner_is_an_error(make: Make) -> None:
    _, adapter, _ = make("plain")
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if name.endswith("lora_B.weight")))
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="without its partner"):
        read_adapter(open_source(str(adapter)))


def test_an_adapter_of_another_base_is_an_error(make: Make) -> None:
    _, adapter, _ = make("plain")
    other, _, _ = make("fan in, fan out")
    source = open_source(str(adapter))
    with pytest.raises(CheckpointError, match=r"no such module|an update of \[64, 96\] for a matrix"):
        adapt(open_checkpoint(str(other)), read_adapter(source), source)


def test_a_weightless_adapter_names_the_missing_file(make: Make) -> None:
    _, adapter, _ = make("plain")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(LlmtrapError, match=r"adapter_model\.safetensors.*missing"):
        read_adapter(open_source(str(adapter)))
