"""LoRA adapters as PEFT saves them: which module is changed, by which factors, at which scale.

ΔW = scale · B·A with A [r, in] and B [out, r]; scale = alpha / r, or alpha / √r with `use_rslora`. An embedding's
factors are named otherwise and give ΔWᵀ, and so does `fan_in_fan_out` (GPT-2's Conv1D stores [in, out]).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.containers import read_contents
from llmtrap.checkpoint.encodings.plain import DTYPES, PlainTensor
from llmtrap.checkpoint.names import natural_key, printable
from llmtrap.checkpoint.patterns import Patterns
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.checkpoint.strict_json import read_object
from llmtrap.checkpoint.tensors import Skipped, TensorEntry
from llmtrap.errors import CheckpointError, UnsafeFileError, UnsupportedError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG = 10_000_000

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?")
_MERGE = "Merge it into its base model (peft: merge_and_unload, then save_pretrained) and give that"
_AGAIN = "Save the adapter again with peft"
_LARGEST = 1e30  # of a rank or an alpha: beyond it the update leaves float64


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one module's update. `transposed`: ΔWᵀ = scale · B·A is what they give.

    For a module that is no embedding `transposed` is only what the configuration says; the shape of the base's matrix
    decides where it can.
    """

    module: str
    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool

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

    `saved` are whole tensors that replace the base's (`modules_to_save`), by the base's tensor name; `base_name` and
    `base_revision` are what the configuration says of the base; `vectors` are the tensors behind `skipped`.
    """

    file: FileEntry
    pairs: tuple[LoraPair, ...]
    saved: dict[str, TensorEntry]
    skipped: tuple[Skipped, ...]
    base_name: str | None
    base_revision: str | None = None
    vectors: tuple[TensorEntry, ...] = ()


def is_adapter(source: Source) -> bool:
    """Whether the target is a PEFT adapter: its configuration is there, and no weights but its own.

    A `config.json` beside it says nothing: trainers leave the base's there.
    """
    root = {file.name for file in source.files() if "/" not in file.name}
    weights = (name for name in root if fnmatchcase(name, "*.safetensors") or fnmatchcase(name, "pytorch_model*"))
    return CONFIG in root and all(fnmatchcase(name, "adapter_model*") for name in weights)


def read_adapter(source: Source) -> Adapter:
    """Read the configuration and the header of an adapter; no weight is read.

    Raises:
        CheckpointError: a file is missing or broken, a factor has no partner, or shapes and ranks contradict.
        UnsupportedError: not LoRA, or a variant of it whose ΔW is not scale · B·A (DoRA and others, by name).
        UnsafeFileError: the weights are a pickle.
    """
    files = {file.name: file for file in source.files()}
    if WEIGHTS not in files:
        if "adapter_model.bin" in files:
            remedy = "Loading it could run code. Load it where you trust it and save it with safe_serialization=True"
            raise UnsafeFileError("the adapter's weights are a pickle", file="adapter_model.bin", remedy=remedy)
        raise CheckpointError("the adapter's weights are missing", file=WEIGHTS, remedy="Fetch the missing file")
    config = _read_config(source, files[CONFIG])
    _refuse_variants(config)
    factors: dict[tuple[str, bool], dict[str, TensorEntry]] = {}
    saved: dict[str, TensorEntry] = {}
    vectors: list[TensorEntry] = []
    for entry in read_contents(source, files[WEIGHTS]).tensors:
        name = entry.name.removeprefix(_PREFIX)
        if found := _FACTOR.fullmatch(name):
            factors.setdefault((found["module"], bool(found["embedding"])), {})[found["side"]] = entry
        elif "lora_" in name:
            _refuse(f"the tensor {printable(name)} belongs to a variant of LoRA that is not read", WEIGHTS)
        elif len(entry.shape) > 1:
            saved[name] = entry
        else:
            vectors.append(entry)
    ranks, alphas = (
        Patterns(config.get(key) or {}, key=key, file=CONFIG, remedy=_MERGE)
        for key in ("rank_pattern", "alpha_pattern")
    )
    pairs = [_pair(module, embedding, found, config, ranks, alphas) for (module, embedding), found in factors.items()]
    if not pairs and not saved:
        raise CheckpointError("the adapter changes no weight matrix", file=WEIGHTS, remedy=_AGAIN)
    pairs.sort(key=lambda pair: natural_key(pair.module))
    base, revision = (
        value if isinstance(value := config.get(key), str) and value else None
        for key in ("base_model_name_or_path", "revision")
    )
    vector = "one-dimensional (a bias, a norm or another vector)"
    skipped = tuple(Skipped.of(entry, vector, "one_dimensional") for entry in vectors)
    return Adapter(files[WEIGHTS], tuple(pairs), saved, skipped, base, revision, tuple(vectors))


def read_factors(pair: LoraPair, source: Source, file: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale · B [out, r] and A [r, in] in float64."""
    return pair.scale * read_factor(pair.b, source, file), read_factor(pair.a, source, file)


def read_factor(entry: TensorEntry, source: Source, file: str | None = None) -> NDArray[np.float64]:
    """One factor in float64; `file` is its name in this source, where that is another than in the entry."""
    placed = entry if file is None else entry.placed(lambda _: file)
    stored = PlainTensor(entry.name, entry.name, entry.dtype, entry.shape, (placed,))
    return stored.decode(source, None, 0, entry.shape[0]).astype(np.float64)


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
    if kind != "LORA":
        _refuse(f"an adapter of type {printable(str(kind), 40)}; only LORA is read")
    if config.get("use_dora"):
        _refuse("this adapter is DoRA: its update also rescales every column, so it is not scale · B·A")
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
    raise UnsupportedError(problem, file=file, remedy=_MERGE)


def _pair(
    module: str, embedding: bool, found: dict[str, TensorEntry], config: dict[str, Any], ranks: Patterns,
    alphas: Patterns,
) -> LoraPair:  # fmt: skip
    shown = printable(module)
    if set(found) != {"A", "B"}:
        raise CheckpointError("a LoRA factor without its partner", file=WEIGHTS, tensor=shown, remedy=_AGAIN)
    a, b = found["A"], found["B"]
    if a.dtype not in DTYPES or b.dtype not in DTYPES:
        raise CheckpointError(f"factors of {a.dtype} and {b.dtype}", file=WEIGHTS, tensor=shown, remedy=_AGAIN)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise UnsupportedError("LoRA on a convolution is not read", file=WEIGHTS, tensor=shown, remedy=_MERGE)
    rank = a.shape[0]
    if rank != b.shape[1] or 0 in (*a.shape, *b.shape):
        problem = f"factors of shapes {list(a.shape)} and {list(b.shape)} do not fit"
        raise CheckpointError(problem, file=WEIGHTS, tensor=shown, remedy=_AGAIN)
    stated = _number(ranks.find(module, config.get("r")), "rank_pattern")
    if stated is not None and stated != rank:
        problem = f"{CONFIG} gives rank {stated:g}, the factors have {rank}"
        raise CheckpointError(problem, file=WEIGHTS, tensor=shown, remedy=_AGAIN)
    alpha = _number(alphas.find(module, config.get("lora_alpha")), "alpha_pattern")
    if alpha is None:
        raise CheckpointError("there is no lora_alpha", file=CONFIG, tensor=shown, remedy=_AGAIN)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LoraPair(module, a, b, scale, embedding or bool(config.get("fan_in_fan_out")))


def _number(value: object, key: str) -> float | None:
    if value is None:
        return None
    # Compared before it is converted: an integer of 400 digits is no float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
        problem = f"{key} holds {printable(repr(value), 40)}, no number that could be meant"
        raise CheckpointError(problem, file=CONFIG, remedy=_AGAIN)
    return float(value)
