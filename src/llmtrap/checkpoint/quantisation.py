"""What a checkpoint says of its quantisation outside config.json, put where config.json would have it."""

from __future__ import annotations

from typing import Any

from llmtrap.checkpoint.config import read_config
from llmtrap.checkpoint.sources.base import Source

KEY = "quantization_config"


def with_quantisation(source: Source, config: dict[str, Any], folder: str = "") -> dict[str, Any]:
    """The configuration with its `quantization_config`, wherever the exporter wrote it.

    That is quantize_config.json of GPTQ, hf_quant_config.json of ModelOpt, quanto_qmap.json of optimum-quanto, the keys
    `compression_config` and (MLX) `quantization`. What config.json says itself is never changed.

    Raises:
        CheckpointError: one of these files is not JSON, or not an object.
    """
    if isinstance(config.get(KEY), dict) and "quant_method" in config[KEY]:
        return config
    if isinstance(config.get("compression_config"), dict):
        return {**config, KEY: config["compression_config"]}
    if isinstance(config.get("quantization"), dict):
        return {**config, KEY: {"quant_method": "mlx", **config["quantization"]}}
    present = {file.name for file in source.files()}
    if f"{folder}hf_quant_config.json" in present:
        stated = read_config(source, f"{folder}hf_quant_config.json").get("quantization")
        return {**config, KEY: {"quant_method": "modelopt", **(stated if isinstance(stated, dict) else {})}}
    if f"{folder}quantize_config.json" in present:
        return {**config, KEY: {"quant_method": "gptq", **read_config(source, f"{folder}quantize_config.json")}}
    if f"{folder}quanto_qmap.json" in present:
        return {**config, KEY: {"quant_method": "quanto", "modules": read_config(source, f"{folder}quanto_qmap.json")}}
    return config
