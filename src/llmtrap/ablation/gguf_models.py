"""GGUF files as `transformers` models: the configuration, and which of their tensors is which parameter.

Names, configuration and the way back from llama.cpp's order of rows are transformers' own (what `from_pretrained` with
`gguf_file` uses); the numbers are decoded by llmtrap, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from llmtrap.ablation.stored_values import Floats
from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.encodings import StoredTensor, claim_all
from llmtrap.checkpoint.names import printable
from llmtrap.errors import MissingExtraError, TargetError, UnsupportedError

_OTHER_FORMAT = "Ablate the model's safetensors checkpoint"
_AS_THEY_ARE = ("token_embd.weight", "output.weight")
"""Tables that no processor changes, so that they can be read row by row."""


def gguf_tokenizer(checkpoint: Checkpoint) -> Any:
    """The `tokenizers` tokenizer that the file's keys describe; None where transformers cannot rebuild it."""
    import transformers  # noqa: PLC0415 - an extra

    path = gguf_path(checkpoint)
    try:
        rebuilt = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    except (ValueError, KeyError, NotImplementedError, OSError):
        return None
    return getattr(rebuilt, "backend_tokenizer", None)


def is_gguf(checkpoint: Checkpoint) -> bool:
    """Whether the weights are in GGUF files."""
    return any(file.name.lower().endswith(".gguf") for file in checkpoint.catalogue.files)


def gguf_path(checkpoint: Checkpoint) -> Path:
    """The model's first GGUF file on this machine, whose keys describe it.

    Raises:
        TargetError: it is not on this machine.
    """
    identity = checkpoint.catalogue.identity
    if identity.kind not in ("folder", "file"):
        remedy = "Download it: hf download REPOSITORY FILE --local-dir DIR"
        raise TargetError("a GGUF file is ablated from this machine's disk", file=identity.name, remedy=remedy)
    place = Path(identity.name)
    return place / checkpoint.catalogue.files[0].name if identity.kind == "folder" else place


def gguf_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What config.json would say, by transformers' reading of the file's keys.

    Raises:
        MissingExtraError: the package `gguf` is not installed.
        UnsupportedError: transformers has no mapping for this architecture.
    """
    if find_spec("gguf") is None:
        raise MissingExtraError.of("ablating a GGUF file", "gguf")
    path = gguf_path(checkpoint)
    try:
        config: dict[str, Any] = _library().load_gguf_checkpoint(str(path))["config"]
    except (ValueError, KeyError, NotImplementedError) as error:
        problem = f"transformers does not build this model: {printable(str(error))}"
        raise UnsupportedError(problem, file=str(path), remedy=_OTHER_FORMAT) from None
    # Of a model in several files the first alone was asked.
    return config | {"tie_word_embeddings": "output.weight" not in checkpoint.catalogue.tensors}


def gguf_tensors(
    checkpoint: Checkpoint, model: Any
) -> tuple[list[tuple[str, StoredTensor, Callable[[Floats], Floats] | None]], list[str]]:
    """Parameters with the tensor that makes each, and how its numbers are put back; then the tensors of no parameter.

    Raises:
        UnsupportedError: the file holds stacks of experts, or transformers has no names for its architecture.
    """
    library = _library()
    path = gguf_path(checkpoint)
    parsed = library.load_gguf_checkpoint(str(path)) | {"tensors": {}}
    keys = next(iter(checkpoint.catalogue.metadata.values()))
    kind = library.TENSOR_PROCESSORS.get(str(keys.get("general.architecture")), library.TensorProcessor)
    processor = kind(config=parsed["config"])
    try:
        names = library.get_gguf_hf_weights_map(model, processor)
    except NotImplementedError as error:
        problem = f"transformers has no names for its tensors: {printable(str(error))}"
        raise UnsupportedError(problem, file=str(path), remedy=_OTHER_FORMAT) from None

    def putting_back(name: str) -> Callable[[Floats], Floats] | None:
        if kind is library.TensorProcessor or name in _AS_THEY_ARE:
            return None

        def adjust(values: Floats) -> Floats:
            done = processor.process(
                weights=values, name=name, tensor_key_mapping=names, parsed_parameters=parsed
            ).weights
            adjusted: Floats = np.ascontiguousarray(done, dtype=values.dtype)
            return adjusted

        return adjust

    state = model.state_dict()
    found, unused = [], []
    for stored in claim_all(checkpoint.catalogue)[0]:
        if len(stored.shape) > 2:
            problem = "experts in a GGUF file are not run"
            raise UnsupportedError(problem, tensor=printable(stored.name), remedy=_OTHER_FORMAT)
        target = names.get(stored.name)
        if target in state:
            found.append((target, stored, putting_back(stored.name)))
        else:
            unused.append(stored.name)
    return found, unused


def _library() -> Any:
    """Transformers' module for GGUF files, which has no types."""
    return import_module("transformers.modeling_gguf_pytorch_utils")
