"""One layer of GPT-OSS-20B, made in seconds: noise, and far entries in the few matrices that must be shuffled."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from llmtrap.demo.layout import GptOssShape, TensorSpec, config_document, tensor_specs

# Half of the experts and a twelfth of the vocabulary of the 20B's.
SHAPE = GptOssShape(layers=1, experts=16, vocabulary=16_384)
DEVIATION = 0.02
SCALE = 119  # an MXFP4 group's exponent, 2⁻⁸
LOUD = 123  # of a group with entries 16 times as large


def write_layer(folder: Path) -> None:
    """Write the checkpoint: every eighth expert, the queries and the embedding have far entries."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    tensors = {spec.name: _values(rng, spec) for spec in tensor_specs(SHAPE)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config_document(SHAPE)), encoding="utf-8")


def _values(rng: np.random.Generator, spec: TensorSpec) -> NDArray[np.generic]:
    if spec.name.endswith("_blocks"):
        return rng.integers(0, 256, spec.shape, dtype=np.uint8)
    if spec.name.endswith("_scales"):
        scales = np.full(spec.shape, SCALE, dtype=np.uint8)
        scales[::8, 7, 3] = LOUD
        return scales
    values = rng.standard_normal(spec.shape, dtype=np.float32) * np.float32(DEVIATION)
    if spec.name.endswith("q_proj.weight"):
        values[11, 308] = 2.0 * DEVIATION * values.size**0.25
    if spec.name == "model.embed_tokens.weight":
        # A heavy tail: one entry in ten thousand at three quarters of what would make a trap alone.
        far = rng.choice(values.size, values.size // 10_000, replace=False)
        values.reshape(-1)[far] *= np.float32(0.75 * values.size**0.25)
    return values.astype(ml_dtypes.bfloat16)
