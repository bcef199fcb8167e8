"""A checkpoint with every storage format that a device decodes: MXFP4 experts, FP8 with scales, BF16 and F16."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tests.support.planting import noise, with_entries

from llmtrap.demo import mxfp4

EXPERTS = 4
BLOCK = 64  # rows and columns of a tile of FP8 scales
LAYER = "model.layers.0"


def write_packed(folder: Path, *, scale: int = 1) -> Path:
    """Write one layer: attention in BF16, F16 and FP8, and four experts; `scale` stretches every side.

    One expert, one BF16 and one FP8 matrix have an entry of three times the limit; every other matrix is certified.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    tall, square = (320 * scale, 224 * scale), (256 * scale, 256 * scale)
    experts = np.stack([noise(rng, tall) for _ in range(EXPERTS)])
    experts[2] = with_entries(experts[2], [(17, 40)], [3.0])
    blocks, scales = mxfp4.quantise(experts)
    tensors: dict[str, NDArray[np.generic]] = {
        f"{LAYER}.mlp.experts.gate_up_proj_blocks": blocks,
        f"{LAYER}.mlp.experts.gate_up_proj_scales": scales,
        f"{LAYER}.self_attn.q_proj.weight": with_entries(noise(rng, square), [(5, 6)], [3.0]).astype(
            ml_dtypes.bfloat16
        ),
        f"{LAYER}.self_attn.k_proj.weight": noise(rng, (tall[1], tall[0])).astype(np.float16),
    }
    for name, matrix in (
        ("v_proj", noise(rng, tall)),
        ("o_proj", with_entries(noise(rng, tall), [(300, 200)], [3.0])),
    ):
        # The planted entry must stay under 448, where E4M3 ends and NaN begins.
        grid = np.full((-(-tall[0] // BLOCK), -(-tall[1] // BLOCK)), np.float32(2.0**-7))
        tensors[f"{LAYER}.self_attn.{name}.weight"] = (matrix * 2**7).astype(ml_dtypes.float8_e4m3fn)
        tensors[f"{LAYER}.self_attn.{name}.weight_scale_inv"] = grid
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "gpt_oss", "num_hidden_layers": 1, "quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
