"""What is said of files that are not read: formats by name, each with its reason and what to do instead."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NoReturn

from llmtrap.checkpoint.names import natural_key, printable
from llmtrap.checkpoint.sources.base import FileEntry
from llmtrap.checkpoint.tensors import SkipKind, Skipped
from llmtrap.errors import CheckpointError, TargetError, UnsafeFileError, UnsupportedError

SUPPORTED = (
    "safetensors, files of torch.save (.bin, .pt, .pth, .ckpt), GGUF, and folders of torch.distributed.checkpoint"
)

READ_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
WEIGHT_SUFFIXES = (
    *READ_SUFFIXES, ".pkl", ".pickle", ".ggml", ".onnx", ".h5", ".msgpack",
    ".distcp", ".npz", ".tflite", ".nemo", ".keras",
)  # fmt: skip

_BARE_PICKLES = ("*.pkl", "*.pickle")
_CONVERT = "Loading it could run code, so it is never opened. Load it where you trust it, and save the weights alone"
_OTHER_FORMATS = (
    ("*.ggml", "GGML", "Audit the safetensors checkpoint it was made from"),
    ("*.onnx", "ONNX", "Audit the safetensors checkpoint it was exported from"),
    ("*.tflite", "TensorFlow Lite", "Audit the safetensors checkpoint it was exported from"),
    ("*.h5", "HDF5 (TensorFlow or Keras)", "Load it with Keras or TensorFlow and save the weights as safetensors"),
    ("*.keras", "Keras", "Save the weights as safetensors"),
    (
        "*.msgpack",
        "Flax",
        "Restore it with flax.serialization and save the arrays with safetensors.flax",
    ),
    ("*.npz", "a NumPy archive", "Save the arrays as safetensors"),
    ("*.nemo", "NeMo", "Export it to the Hugging Face format"),
    ("*/mp_rank_*/*", "Megatron", "Export it to the Hugging Face format"),
    ("mp_rank_*/*", "Megatron", "Export it to the Hugging Face format"),
)
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".aria2", ".download")
_OFTEN_APART = ("*head*", "*projector*", "*classifier*", "*connector*", "non_lora_trainables*")
_MODULE_FOLDER = re.compile(r"\d+_[A-Z]\w*/.+")  # of sentence-transformers
_SHOWN = 20
_NOT_WEIGHTS = (
    "training_args.bin", "optimizer*.pt", "optimizer*.bin", "scheduler*.pt", "scheduler*.bin", "rng_state*.pth",
    "scaler.pt", "sampler*.bin", "dl_state_dict*.bin", "random_states_*.pkl", "custom_checkpoint_*.pkl",
    "*_optim_states.pt", "optimizer*.safetensors", "*.optimizer.safetensors",
)  # fmt: skip


def refuse_target(source_name: str, names: Sequence[str]) -> NoReturn:
    """Say why a target without readable weights cannot be audited.

    Args:
        source_name: the target, or the index that names the files.
        names: the files found there.

    Raises:
        UnsupportedError: a format that is not read, or an adapter without its configuration.
        CheckpointError: chunks of a distributed checkpoint without their list.
        UnsafeFileError: only bare pickles.
        TargetError: no weights at all, or only in a subfolder.
    """
    nested = [
        name
        for name in names
        if "/" in name
        and name.endswith((*READ_SUFFIXES, ".distcp"))
        and not is_other_format(name)
        and not is_training_state(posixpath.basename(name))
        and "/." not in f"/{name}"
    ]
    root = [name for name in names if "/" not in name]
    if any(is_adapter_file(name) for name in root):
        problem = "these are an adapter's factors (LoRA), which say nothing without its adapter_config.json"
        remedy = (
            "Give the folder or repository that holds both, "
            "or merge it into its base model (peft: merge_and_unload, then save_pretrained) and audit that"
        )
        raise UnsupportedError(problem, file=source_name, remedy=remedy)
    unfinished = next((name for name in names if name.endswith(_UNFINISHED)), None)
    if unfinished and not any(name.endswith(READ_SUFFIXES) for name in root):
        problem = "an unfinished download, and no weights beside it"
        raise CheckpointError(problem, file=printable(unfinished), remedy="Start the download again: it carries on")
    if any(name.endswith(".distcp") for name in root):
        problem = "the list of a PyTorch distributed checkpoint's chunks is missing"
        raise CheckpointError(
            problem, file=".metadata", remedy="Fetch the hidden file into the checkpoint's folder too"
        )
    for pattern, what, remedy in _OTHER_FORMATS:
        found = next((name for name in root if fnmatchcase(name, pattern)), None)
        if found:
            problem = f"{what} is not a format that llmtrap reads (it reads {SUPPORTED})"
            raise UnsupportedError(problem, file=printable(found), remedy=remedy)
    for name in root:
        if any(fnmatchcase(name, pattern) for pattern in _BARE_PICKLES) and not is_training_state(name):
            raise UnsafeFileError("the weights are a pickle", file=printable(name), remedy=_CONVERT)
    if nested:
        _refuse_nested(source_name, sorted({posixpath.dirname(name) for name in nested}, key=natural_key))
    for pattern, what, remedy in _OTHER_FORMATS:
        if any(fnmatchcase(name, pattern) for name in names):
            problem = f"{what} is not a format that llmtrap reads (it reads {SUPPORTED})"
            raise UnsupportedError(problem, file=source_name, remedy=remedy)
    raise TargetError("no weights here", file=source_name, remedy=f"llmtrap reads {SUPPORTED}")


def _refuse_nested(source_name: str, folders: Sequence[str]) -> NoReturn:
    """Name the subfolders that hold weights; the last one, of a training run the latest, as an example."""
    shown = [repr(printable(folder, 80)) for folder in folders[:_SHOWN]]
    if len(folders) > _SHOWN:
        shown.append(f"{len(folders) - _SHOWN} more")
    example = posixpath.join(source_name, folders[-1])
    if len(folders) == 1:
        words, remedy = f"the subfolder {shown[0]}", f"Give that folder as the target: {example}"
    else:
        words = f"the subfolders {', '.join(shown[:-1])} and {shown[-1]}"
        remedy = f"Give one of them as the target, such as {example}"
    raise TargetError(f"no weights here, only in {words}", file=source_name, remedy=remedy)


_EXTRA = "not one of the files the checkpoint consists of, by its name; not looked at"
_ADAPTER = "an adapter (LoRA), not part of the checkpoint's own weights"
_ADAPTER_BESIDE = (
    "an adapter (LoRA) beside whole weights: these are audited as they stand, and whether it is merged into them is "
    "not known; move it out of the folder, or give it in one of its own"
)
_MODULE = (
    "a module of a sentence-transformers model, as its folder's name says, without the modules.json that joins them"
)
_PERHAPS_PART_OF_IT = (
    _EXTRA,
    _ADAPTER_BESIDE,
    _MODULE,
)  # weights that may be the model's: without them none of it is clean


def left_aside(file: FileEntry, name: str, reason: str | None = None) -> Skipped:
    """A weight file that is not part of what is audited, with the reason.

    Args:
        file: the file.
        name: its name within the checkpoint's folder.
        reason: why, where that is known; else it is read from the name.
    """
    why = reason or _reason(name)
    kind: SkipKind = "unmeasured" if why in _PERHAPS_PART_OF_IT else "file_not_read"
    return Skipped(f"{printable(file.name)} (file)", why, kind, bytes=file.size)


def _reason(name: str) -> str:
    base = posixpath.basename(name)
    if base.startswith("._"):
        return "what macOS notes of a file on foreign disks, not weights"
    if name.startswith(".") or "/." in name:
        return "hidden, so not the checkpoint's own"
    if is_training_state(base):
        return "state of a training run, not weights; never opened"
    if name.startswith("metal/"):
        return "a second copy of the weights, in another container"
    if any(fnmatchcase(base, pattern) for pattern in _BARE_PICKLES):
        return "a pickle, never opened"
    for pattern, what, _ in _OTHER_FORMATS:
        if fnmatchcase(base, pattern):
            return f"another format ({what}), which is not read"
    if is_adapter_file(base):
        return _ADAPTER if "/" in name else _ADAPTER_BESIDE
    if "/" in name:
        folder = posixpath.dirname(name)
        if folder == "original":
            return "a second copy of the weights under the original names; audit it by giving that folder as the target"
        if _MODULE_FOLDER.fullmatch(name):
            return _MODULE
        return "in a subfolder, so another checkpoint or a second copy; audit it by giving that folder as the target"
    if fnmatchcase(base, "consolidated*"):
        return "a second copy of the weights under the original names"
    if fnmatchcase(base, "*imatrix*.gguf"):
        return "statistics of activations that a quantisation was made with, not weights"
    if fnmatchcase(base, "*mmproj*.gguf"):
        return "the projector of images or sound, a model of its own; audit it by giving the file as the target"
    if not base.endswith(".safetensors") and not any(fnmatchcase(base.lower(), often) for often in _OFTEN_APART):
        return "in another container than the files that are audited"
    return _EXTRA


def is_training_state(name: str) -> bool:
    """Whether the file is a trainer's own: an optimizer's, a scheduler's, a generator's state."""
    return any(fnmatchcase(name, pattern) for pattern in _NOT_WEIGHTS)


def is_adapter_file(name: str) -> bool:
    """Whether the file holds a PEFT adapter's factors, by its name."""
    return fnmatchcase(name, "adapter_model*")


def is_other_format(name: str) -> bool:
    """Whether the name says that the file is of a format that is not read."""
    return any(fnmatchcase(name, pattern) for pattern, _, _ in _OTHER_FORMATS)
