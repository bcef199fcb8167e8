"""A model run layer by layer is the model: the same numbers as `transformers`' own, changed weights included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.ablation.conftest import MODELS, save_model

from llmtrap.ablation.layer_gate import Variant
from llmtrap.ablation.stored_values import Place
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import open_checkpoint
from llmtrap.demo import mxfp4
from llmtrap.demo.checkpoint import write_demo_checkpoint
from llmtrap.errors import UnsupportedError

TOKENS = torch.randint(0, 130, (3, 20), generator=torch.Generator().manual_seed(1))


def reference(folder: Path) -> Any:
    factory = transformers.AutoModel if "bert" in folder.name else transformers.AutoModelForCausalLM
    model = factory.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    with torch.no_grad():
        output = model(input_ids=TOKENS)
    return output.last_hidden_state if "bert" in folder.name else output.logits


@pytest.mark.parametrize("name", MODELS)
def test_it_gives_the_whole_models_numbers(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    save_model(name, folder)
    model = StreamedModel(open_checkpoint(str(folder)))
    with model.run(TOKENS) as outcome:
        assert torch.equal(outcome.logits(None), reference(folder))


def test_weights_are_let_go_after_each_layer(llama: Path) -> None:
    model = StreamedModel(open_checkpoint(str(llama)))
    with model.run(TOKENS):
        assert all(parameter.is_meta for gate in model.gates for parameter in gate.parameters())


@pytest.mark.parametrize(
    ("name", "tensor", "index", "place"),
    [
        ("llama", "model.layers.1.mlp.down_proj.weight", None, (3, 5)),
        ("gpt2", "transformer.h.1.mlp.c_proj.weight", None, (5, 3)),
        ("gpt_oss", "model.layers.1.mlp.experts.down_proj", 2, (5, 3)),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.2.w2.weight", None, (3, 5)),
    ],
)
def test_a_variant_is_the_model_with_that_entry_changed(
    name: str, tensor: str, index: int | None, place: tuple[int, int], tmp_path: Path
) -> None:
    folder = tmp_path / name
    save_model(name, folder)
    stored = load_file(folder / "model.safetensors")
    tensor = next(key for key in stored if key.endswith(tensor.removeprefix("transformer.").removeprefix("model.")))

    def change(matrix: Any) -> Any:
        matrix[place] = 30.0
        return matrix

    model = StreamedModel(open_checkpoint(str(folder)))
    layer = model.layer_of(tensor)
    with model.run(TOKENS, [Variant("x", {Place(tensor, index): change}, layer)]) as outcome:
        changed, base = outcome.logits("x"), outcome.logits(None)
    with model.replaced({Place(tensor, index): change}), model.run(TOKENS) as outcome:
        whole_pass = outcome.logits(None)
    # What the library itself makes of a file with that entry
    stored[tensor][(*(() if index is None else (index,)), *place)] = 30.0
    edited = tmp_path / f"{name}-edited"
    edited.mkdir()
    save_file(stored, edited / "model.safetensors", metadata={"format": "pt"})
    (edited / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert layer == 1
    assert not torch.allclose(changed, base)
    torch.testing.assert_close(changed, reference(edited), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole_pass, reference(edited), rtol=1e-5, atol=1e-5)


def test_mxfp4_experts_are_decoded_as_they_are_read(tmp_path: Path) -> None:
    write_demo_checkpoint(tmp_path / "demo")
    checkpoint = open_checkpoint(str(tmp_path / "demo"))
    model = StreamedModel(checkpoint)
    with model.run(TOKENS) as outcome:
        logits = outcome.logits(None)
    # The library's model with the same numbers, decoded by llmtrap's own MXFP4 writer
    stored = load_file_of_shards(tmp_path / "demo")
    config = {k: v for k, v in checkpoint.catalogue.config.items() if k not in ("quantization_config", "model_type")}
    whole = transformers.GptOssForCausalLM(transformers.GptOssConfig(**config, experts_implementation="eager")).eval()
    state = {}
    for name, tensor in stored.items():
        if name.endswith("_blocks"):
            values = mxfp4.dequantise(tensor.numpy(), stored[name.replace("_blocks", "_scales")].numpy())
            state[name.removesuffix("_blocks")] = torch.from_numpy(values).transpose(1, 2)
        elif not name.endswith("_scales"):
            state[name] = tensor.float()
    whole.load_state_dict(state)
    whole.config._experts_implementation = "eager"
    with torch.no_grad():
        assert torch.equal(whole(input_ids=TOKENS).logits, logits)


def load_file_of_shards(folder: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def test_large_embeddings_are_read_as_they_are_needed(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtrap.ablation.stand_ins.HELD_PARAMETERS", 100)
    model = StreamedModel(open_checkpoint(str(llama)))
    with model.run(TOKENS) as outcome:
        torch.testing.assert_close(outcome.logits(None), reference(llama), rtol=1e-5, atol=1e-5)
    assert type(model.model.get_input_embeddings()).__name__ == "StreamedEmbedding"
    assert type(model.model.get_output_embeddings()).__name__ == "StreamedLinear"


def test_a_tied_head_reads_the_streamed_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtrap.ablation.stand_ins.HELD_PARAMETERS", 100)
    folder = tmp_path / "qwen2"
    save_model("qwen2", folder)
    model = StreamedModel(open_checkpoint(str(folder)))
    with model.run(TOKENS) as outcome:
        torch.testing.assert_close(outcome.logits(None), reference(folder), rtol=1e-5, atol=1e-5)


def test_an_unknown_model_type_is_refused_and_no_code_of_the_folder_runs(llama: Path) -> None:
    config = (llama / "config.json").read_text().replace('"llama"', '"my_llama"')
    (llama / "config.json").write_text(config.replace("{", '{"auto_map": {"AutoModelForCausalLM": "evil.Model"},', 1))
    (llama / "evil.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(UnsupportedError, match="'my_llama', which transformers does not know"):
        StreamedModel(open_checkpoint(str(llama)))


def test_a_checkpoint_that_lacks_parameters_is_refused_by_name(llama: Path) -> None:
    stored = load_file(llama / "model.safetensors")
    del stored["model.layers.2.mlp.up_proj.weight"]
    save_file(stored, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        StreamedModel(open_checkpoint(str(llama)))
