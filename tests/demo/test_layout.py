"""The GPT-OSS layout, held against the published figures of both sizes."""

from __future__ import annotations

from llmtrap.demo.layout import (
    GptOssShape,
    TensorSpec,
    cut_shards,
    index_document,
    matrix_id,
    shard_name,
    tensor_specs,
)

GPT_OSS_20B = GptOssShape()
GPT_OSS_120B = GptOssShape(layers=36, experts=128)


def test_the_20b_cuts_into_its_published_shards() -> None:
    shards = cut_shards(tensor_specs(GPT_OSS_20B))

    assert sum(map(len, shards)) == 459
    # Data bytes; with their headers the published files have 4,792,272,488, 4,798,702,184 and 4,170,342,232 bytes
    assert [sum(spec.nbytes for spec in shard) for shard in shards] == [4_792_250_240, 4_798_679_872, 4_170_334_656]
    index = index_document(shards)
    assert index["metadata"] == {"total_size": 13_761_264_768}
    # A layer straddles the first cut, as in the published index
    assert index["weight_map"]["model.layers.18.self_attn.o_proj.weight"] == "model-00000-of-00002.safetensors"
    assert index["weight_map"]["model.layers.18.self_attn.q_proj.weight"] == "model-00001-of-00002.safetensors"


def test_the_120b_has_its_published_size_and_count() -> None:
    specs = tensor_specs(GPT_OSS_120B)
    shards = cut_shards(specs)

    assert (len(specs), len(shards)) == (687, 15)
    assert index_document(shards)["metadata"]["total_size"] == 65_248_815_744
    assert sum(spec.nbytes for spec in specs if spec.dtype == "U8") == 60_914_073_600


def test_an_oversized_tensor_gets_a_shard_of_its_own() -> None:
    sizes = {"a": 3, "b": 12, "c": 4, "d": 5, "e": 2}
    shards = cut_shards([TensorSpec(name, "U8", (size,)) for name, size in sizes.items()], max_bytes=10)

    assert [[spec.name for spec in shard] for shard in shards] == [["a"], ["b"], ["c", "d"], ["e"]]


def test_shard_names_count_from_zero() -> None:
    assert [shard_name(i, 3) for i in range(3)] == [
        "model-00000-of-00002.safetensors",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_matrix_ids() -> None:
    names = [
        ("model.layers.12.self_attn.q_proj.weight", None, "layers.12.attention.q"),
        ("model.layers.12.mlp.experts.gate_up_proj_blocks", 7, "layers.12.experts.7.gate_up"),
        ("model.layers.3.mlp.experts.down_proj_blocks", 0, "layers.3.experts.0.down"),
        ("model.layers.3.mlp.router.weight", None, "layers.3.router"),
        ("model.embed_tokens.weight", None, "embedding"),
        ("lm_head.weight", None, "unembedding"),
        ("model.layers.3.mlp.experts.down_proj_scales", 0, None),
        ("model.layers.3.mlp.experts.down_proj_bias", 0, None),
        ("model.norm.weight", None, None),
    ]
    assert [matrix_id(name, expert) for name, expert, _ in names] == [expected for *_, expected in names]
