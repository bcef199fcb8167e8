"""LoRA adapters as PEFT saves them: which module is changed, by which factors, at which scale.

ΔW = scale · B·A with A [r, in] and B [out, r]; scale = alpha / r, or alpha / √r with `use_rslora`. An embedding's
factors are named otherwise and give ΔWᵀ, and so does `fan_in_fan_out` (GPT-2's Conv1D stores [in, out]). A
convolution's A is [r, in, k, k], which is [r, in·k·k] as its kernels are measured. DoRA (arXiv 2402.09353) scales every
output of W + ΔW to a length of its own, the magnitude.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.adapter_tensors import MERGE, sort_tensors
from llmtrap.checkpoint.containers import read_contents
from llmtrap.checkpoint.encodings.chunked import ChunkedTensor
from llmtrap.checkpoint.encodings.plain import DTYPES, PlainTensor
from llmtrap.checkpoint.file_sets import is_shard
from llmtrap.checkpoint.layout import KINDS, root_weights
from llmtrap.checkpoint.names import natural_key, printable
from llmtrap.checkpoint.patterns import Patterns
from llmtrap.checkpoint.refusals import WEIGHT_SUFFIXES, is_adapter_file, is_training_state, left_aside
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.checkpoint.strict_json import read_object
from llmtrap.checkpoint.tensors import Skipped, TensorEntry
from llmtrap.checkpoint.weight_index import index_parts
from llmtrap.errors import CheckpointError, UnsupportedError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TRAINED_WHOLE = ("non_lora_trainables.safetensors", "non_lora_trainables.bin")
"""Where LLaVA's recipes put the modules that were trained whole, beside the adapter."""

MAX_CONFIG = 10_000_000

_AGAIN = "Save the adapter again with peft"
_BESIDE = "beside the adapter, which is what is audited; not looked at"
_LARGEST = 1e30  # of a rank or an alpha: beyond it the update leaves float64


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one module's update. `transposed`: ΔWᵀ = scale · B·A is what they give.

    For a module that is no embedding `transposed` is only what the configuration says; the shape of the base's matrix
    decides where it can. `magnitude` is DoRA's: the length of each output of W + ΔW, in place of its own.
    """

    module: str
    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool
    magnitude: TensorEntry | None = None

    @property
    def rank(self) -> int:
        """R."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Of ΔW as the base stores it: [out, in], or [in, out] where transposed."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)


@dataclass(frozen=True)
class Adapter:
    """One adapter, from its configuration and header alone.

    `saved` are whole tensors (`modules_to_save`), by the base's tensor name: they replace the base's, or are added to
    it; `base_name` and `base_revision` are what the configuration says of the base; `files` are all that are read,
    the adapter's own first; `vectors` are the tensors behind `skipped`.
    """

    file: FileEntry
    pairs: tuple[LoraPair, ...]
    saved: dict[str, TensorEntry]
    skipped: tuple[Skipped, ...]
    base_name: str | None
    base_revision: str | None = None
    vectors: tuple[TensorEntry, ...] = ()
    files: tuple[FileEntry, ...] = ()


def is_adapter(source: Source) -> bool:
    """Whether the target is a PEFT adapter: its configuration is there with its weights, and no whole model's.

    Of other files beside it those of a whole model in safetensors alone say otherwise, since libraries load these;
    trainers leave pickles there, and the base's `config.json`.
    """
    root = [file.name for file in source.files() if "/" not in file.name]
    if CONFIG not in root:
        return False
    weights = [name for kind in KINDS for name in root_weights(root, kind)]
    if not any(name in WEIGHTS for name in root):
        return not weights
    (safetensors,) = (kind for kind in KINDS if kind.suffix == ".safetensors")
    return not any(
        name in safetensors.singles or is_shard(name) or (index_parts(name) or ("", ""))[1] == safetensors.suffix
        for name in root
        if name.endswith((safetensors.suffix, ".json")) and not is_adapter_file(name)
    )


def read_adapter(source: Source) -> Adapter:
    """Read the configuration and the header of an adapter; no weight is read.

    Raises:
        CheckpointError: a file is missing or broken, a factor has no partner, or shapes and ranks contradict.
        UnsupportedError: not LoRA, or a variant of it whose update is another one (by name).
        UnsafeFileError: the weights are a pickle that is no state dict.
    """
    files = {file.name: file for file in source.files()}
    weights = next((name for name in WEIGHTS if name in files), None)
    if weights is None:
        raise CheckpointError("the adapter's weights are missing", file=WEIGHTS[0], remedy="Fetch the missing file")
    config = _read_config(source, files[CONFIG])
    _refuse_variants(config)
    read = [files[weights], *(files[name] for name in TRAINED_WHOLE if name in files)]
    contents = [read_contents(source, file) for file in read]
    found = sort_tensors([entry for one in contents for entry in one.tensors], weights)
    ranks, alphas = (
        Patterns(config.get(key) or {}, key=key, file=CONFIG, remedy=MERGE) for key in ("rank_pattern", "alpha_pattern")
    )
    pairs = [
        _pair(module, embedding, sides, config, ranks, alphas, weights)
        for (module, embedding), sides in found.factors.items()
    ]
    if not pairs and not found.saved:
        raise CheckpointError("the adapter changes no weight matrix", file=weights, remedy=_AGAIN)
    pairs.sort(key=lambda pair: natural_key(pair.module))
    base, revision = (
        value if isinstance(value := config.get(key), str) and value else None
        for key in ("base_model_name_or_path", "revision")
    )
    skipped = [*found.skipped, *(item for one in contents for item in one.skipped), *_beside(files, read)]
    return Adapter(
        read[0], tuple(pairs), found.saved, tuple(skipped), base, revision, tuple(found.vectors), tuple(read)
    )


def _beside(files: dict[str, FileEntry], read: list[FileEntry]) -> list[Skipped]:
    """The other weight files of an adapter's folder: what may belong to the model is nothing that was measured."""
    skipped = []
    for name, file in files.items():
        if file in read or not name.endswith(WEIGHT_SUFFIXES):
            continue
        if "/" in name or name.startswith(".") or is_training_state(name) or is_adapter_file(name):
            skipped.append(left_aside(file, name))
        else:
            aside = left_aside(file, name, _BESIDE)
            skipped.append(replace(aside, kind="unmeasured") if name.endswith(".safetensors") else aside)
    return skipped


def read_factors(pair: LoraPair, source: Source, file: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale · B [out, r] and A [r, in] in float64.

    Raises:
        UnsupportedError: the update is DoRA's, which is no product of two factors.
    """
    if pair.magnitude is not None:
        problem = "DoRA's update depends on the weights that it is for"
        remedy = "Judge it with its base model"
        raise UnsupportedError(problem, file=file, tensor=printable(pair.module), remedy=remedy)
    return pair.scale * read_factor(pair.b, source, file), read_factor(pair.a, source, file)


def read_factor(entry: TensorEntry, source: Source, file: str | None = None) -> NDArray[np.float64]:
    """One factor in float64; `file` is its name in this source, where that is another than in the entry."""
    placed = entry if file is None else entry.placed(lambda _: file)
    stored = stored_whole(placed, entry.name, entry.name)
    return stored.decode(source, None, 0, entry.shape[0]).astype(np.float64)


def stored_whole(entry: TensorEntry, name: str, module: str) -> PlainTensor:
    """A tensor of an adapter as one that can be decoded, by another name."""
    kind = ChunkedTensor if entry.chunks else PlainTensor
    return kind(name, module, entry.dtype, entry.shape, (entry,))


def singular_values(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Singular values of left·right, descending, from an r × r problem: the product is never formed.

    left = Q₁R₁ and rightᵀ = Q₂R₂ give left·right = Q₁(R₁R₂ᵀ)Q₂ᵀ, whose singular values are those of R₁R₂ᵀ.

    Args:
        left: [out, r].
        right: [r, in].
    """
    return np.linalg.svd(np.linalg.qr(left).R @ np.linalg.qr(right.T).R.T, compute_uv=False)


def _read_config(source: Source, file: FileEntry) -> dict[str, Any]:
    if file.size > MAX_CONFIG:
        raise CheckpointError(f"{file.size} bytes are too many for a configuration", file=CONFIG, remedy=_AGAIN)
    return read_object(
        source.read(ByteRange(file.name, 0, file.size)), file=CONFIG, what="configuration", constants=True
    )


def _refuse_variants(config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind in ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT"):
        problem = f"an adapter of type {kind}: trained prompts, which change no weight of their base model"
        raise UnsupportedError(problem, file=CONFIG, remedy="Audit the base model itself")
    if kind != "LORA":
        _refuse(f"an adapter of type {printable(str(kind), 40)}; only LORA is read")
    for key, what in (
        ("use_qalora", "QA-LoRA"), ("use_bdlora", "block-diagonal LoRA"), ("layer_replication", "layer replication"),
        ("target_parameters", "LoRA on parameters of fused experts (target_parameters)"),
        ("trainable_token_indices", "trained tokens (trainable_token_indices)"), ("kasa_config", "KaSA"),
        ("monteclora_config", "MonteCLoRA"), ("velora_config", "VeLoRA"),
    ):  # fmt: skip
        if config.get(key):
            _refuse(f"{what} is not read")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(("pissa", "olora", "corda", "lora_ga", "loftq")):
        _refuse(f"started by {printable(start, 40)}, this adapter belongs to a changed copy of its base model")


def _refuse(problem: str, file: str = CONFIG) -> None:
    raise UnsupportedError(problem, file=file, remedy=MERGE)


def _pair(
    module: str, embedding: bool, found: dict[str, TensorEntry], config: dict[str, Any], ranks: Patterns,
    alphas: Patterns, file: str,
) -> LoraPair:  # fmt: skip
    shown = printable(module)
    if not {"A", "B"} <= set(found):
        raise CheckpointError("a LoRA factor without its partner", file=file, tensor=shown, remedy=_AGAIN)
    if unread := next((entry for entry in found.values() if entry.dtype not in DTYPES), None):
        raise CheckpointError(f"a factor of {unread.dtype}", file=file, tensor=shown, remedy=_AGAIN)
    a, b = _as_matrix(found["A"], file), _as_matrix(found["B"], file)
    rank = a.shape[0]
    if rank != b.shape[1] or 0 in (*a.shape, *b.shape):
        problem = f"factors of shapes {list(found['A'].shape)} and {list(found['B'].shape)} do not fit"
        raise CheckpointError(problem, file=file, tensor=shown, remedy=_AGAIN)
    stated = _number(ranks.find(module, config.get("r")), "rank_pattern")
    if stated is not None and stated != rank:
        problem = f"{CONFIG} gives rank {stated:g}, the factors have {rank}"
        raise CheckpointError(problem, file=file, tensor=shown, remedy=_AGAIN)
    alpha = _number(alphas.find(module, config.get("lora_alpha")), "alpha_pattern")
    if alpha is None:
        raise CheckpointError("there is no lora_alpha", file=CONFIG, tensor=shown, remedy=_AGAIN)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    magnitude = _magnitude(found, config, b.shape[0], file, shown)
    return LoraPair(module, a, b, scale, embedding or bool(config.get("fan_in_fan_out")), magnitude)


def _as_matrix(entry: TensorEntry, file: str) -> TensorEntry:
    """A factor as a matrix: a convolution's has its kernel's positions behind its inputs."""
    if len(entry.shape) == 2:
        return entry
    if len(entry.shape) not in (3, 4, 5) or entry.chunks:
        problem = f"a factor of shape {list(entry.shape)} is not read"
        raise UnsupportedError(problem, file=file, tensor=printable(entry.name), remedy=MERGE)
    return replace(entry, shape=(entry.shape[0], math.prod(entry.shape[1:])))


def _magnitude(
    found: dict[str, TensorEntry], config: dict[str, Any], outputs: int, file: str, shown: str
) -> TensorEntry | None:
    """DoRA's lengths of the outputs, one each."""
    magnitude = found.get("magnitude_vector")
    if bool(config.get("use_dora")) != (magnitude is not None):
        problem = "use_dora is set, and there are no magnitudes" if magnitude is None else "magnitudes without use_dora"
        raise CheckpointError(problem, file=file, tensor=shown, remedy=_AGAIN)
    if magnitude is None:
        return None
    if magnitude.size != outputs or max(magnitude.shape, default=0) != outputs or magnitude.chunks:
        problem = f"magnitudes of shape {list(magnitude.shape)} for {outputs} outputs"
        raise CheckpointError(problem, file=file, tensor=shown, remedy=_AGAIN)
    return replace(magnitude, shape=(1, outputs))


def _number(value: object, key: str) -> float | None:
    if value is None:
        return None
    # Compared before it is converted: an integer of 400 digits is no float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
        problem = f"{key} holds {printable(repr(value), 40)}, no number that could be meant"
        raise CheckpointError(problem, file=CONFIG, remedy=_AGAIN)
    return float(value)
