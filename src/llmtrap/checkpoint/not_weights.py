"""Tensors that are not the weights a model computes with: LoRA factors, unmerged updates, parameters not gathered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import TensorEntry
from llmtrap.errors import CheckpointError, UnsupportedError

_MERGE = "Merge it into its base model (peft: merge_and_unload, then save_pretrained) and audit the result"
_MERGE_MLX = "Fuse it into its base model (mlx_lm.fuse --model BASE --adapter-path FOLDER) and audit the result"
_MERGE_DIFFUSERS = (
    "Fuse it into its base (diffusers: load_lora_weights, fuse_lora, unload_lora_weights, then save_pretrained) "
    "and audit the result"
)

_MERGE_TASKS = (
    "Write one folder for each task (docs/targets.md, Several tasks in one file, has the lines) and audit each of them"
)

# Of one kind all names of a file's factors end so; in the order in which they are told apart.
_UPDATES = (
    (
        re.compile(r"(.+\.)?lora_[ab]"),
        "an adapter of MLX (LoRA factors lora_a and lora_b), which says nothing without its base model",
        _MERGE_MLX,
    ),
    (
        re.compile(
            r"(.+[._])?lora_(down|up|mid)(\.\w+)*|(.+\.)?(to_\w+_)?lora[._](down|up)(\.\w+)*"
            r"|(lora_(unet|te\d?|transformer|prior\w*)|lycoris)_.+"
        ),
        "a LoRA file of kohya's layout (lora_down and lora_up, as ComfyUI and diffusers load it), "
        "which says nothing without its base model",
        _MERGE_DIFFUSERS,
    ),
    (
        re.compile(r"(.+\.)?(hada_[wt][12](_[ab])?|lokr_[wt][12](_[ab])?|oft_blocks|oft_diag|on_input|dora_scale)"),
        "a LyCORIS file (LoHa, LoKr or OFT factors), which says nothing without its base model",
        _MERGE_DIFFUSERS,
    ),
    (
        re.compile(
            r"(unet|text_encoder\w*|text_model|transformer|prior|diffusion_model)\..+[._]lora_(A|B)(\.\w+)*"
        ),
        "a LoRA file of diffusers, which says nothing without its base model",
        _MERGE_DIFFUSERS,
    ),
    (
        re.compile(r"(.+\.)?lora_(embedding_)?(A|B|magnitude_vector)(\.\w+)*"),
        "LoRA factors, which say nothing without their base model and the adapter_config.json that has their scale",
        "Give the folder that holds adapter_model.safetensors and adapter_config.json, or merge: " + _MERGE,
    ),
    (
        re.compile(r"(.+\.)?(vera_lambda_[bd]|vera_[AB]|ia3_l|hra_u|oft_r|boft_\w+|loha_\w+|lokr_\w+)(\.\w+)*"),
        "an adapter's factors (PEFT), which say nothing without their base model",
        _MERGE,
    ),
)  # fmt: skip
# One of these is in every name that a pattern here matches: to look for them in all names at once is fast.
_WORDS = (
    "lora", "lycoris_", "hada_", "lokr_", "oft_", "on_input", "dora_scale", "vera_", "ia3_l", "hra_u", "loha_",
    ".base_layer.", ".original_module.", ".modules_to_save.",
)  # fmt: skip
_TASKS = re.compile(r".+\.parametrizations\.\w+\.\d+\.lora_[AB]")
_WRAPPED = re.compile(r".+\.(base_layer\.[A-Za-z_]\w*|original_module\..+|modules_to_save\..+)")
_FLAT = re.compile(r"(.+\.)?_?flat_param(_\d+)?")
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_GATHER = (
    "Save it again with the parameters gathered (DeepSpeed: stage3_gather_16bit_weights_on_model_save, "
    "or zero_to_fp32.py on the training checkpoint; FSDP: a full state dict)"
)


def refuse_updates(tensors: Sequence[TensorEntry]) -> None:
    """Stop where a file's tensors are updates of weights, or weights whose updates lie beside them unmerged.

    Args:
        tensors: what one file holds.

    Raises:
        UnsupportedError: the layout, by its name.
    """
    names = "\n".join(entry.name for entry in tensors)
    if not any(word in names for word in _WORDS):
        return
    tasks = next((entry for entry in tensors if len(entry.shape) == 3 and _TASKS.fullmatch(entry.name)), None)
    if tasks is not None:
        problem = (
            f"updates for {tasks.shape[0]} tasks (LoRA factors in one stack) lie beside the weights that they are for"
        )
        raise UnsupportedError(problem, file=tasks.span.file, tensor=printable(tasks.name), remedy=_MERGE_TASKS)
    wrapped = next((entry for entry in tensors if _WRAPPED.fullmatch(entry.name)), None)
    for pattern, what, remedy in _UPDATES:
        factors = [entry for entry in tensors if pattern.fullmatch(entry.name)]
        if not factors:
            continue
        of_factors, of_all = (sum(entry.size for entry in entries) for entries in (factors, tensors))
        if wrapped is not None or of_factors < of_all / 2:
            problem = "the update (LoRA factors) lies beside the weights that it is for and is not merged into them"
            raise UnsupportedError(problem, file=factors[0].span.file, tensor=printable(factors[0].name), remedy=_MERGE)
        raise UnsupportedError(
            f"this is {what}", file=factors[0].span.file, tensor=printable(factors[0].name), remedy=remedy
        )
    if wrapped is not None:
        problem = "saved from a model that PEFT still wraps, so these are not the weights it computes with"
        raise UnsupportedError(problem, file=wrapped.span.file, tensor=printable(wrapped.name), remedy=_MERGE)


def refuse_ungathered(tensors: Iterable[TensorEntry]) -> None:
    """Stop where weights are empty or flattened: a sharded training run saved its own part, or nothing.

    Raises:
        CheckpointError: the tensor, and how to save it whole.
    """
    for entry in tensors:
        if entry.shape == (0,) and entry.dtype in _FLOATS and entry.name.endswith((".weight", ".lora_A", ".lora_B")):
            problem = (
                "the weight is empty: the parameters were not gathered before saving, as happens under DeepSpeed ZeRO-3"
            )
            raise CheckpointError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=_GATHER)
        if len(entry.shape) == 1 and _FLAT.fullmatch(entry.name):
            problem = "parameters flattened into one vector, as FSDP keeps them: their shapes are not in the file"
            raise CheckpointError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=_GATHER)
