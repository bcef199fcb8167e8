"""The names in a PEFT adapter's file: which tensor is a factor of which module, and which is saved whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import Skipped, TensorEntry
from llmtrap.errors import CheckpointError, UnsupportedError

_PREFIX = "base_model.model."
_WRAPPERS = re.compile(
    r"^(?:module\.|pretrained_model\.)+|(?:(?<=^)|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
    r"|_forward_module)\."
)
# `lora_A.weight` as PEFT saves it, `lora_A.default.weight` as the model's own state dict has it.
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<kind>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.(?!weight$|bias$)(?P<adapter>\w+))?(?:\.(?P<what>weight|bias))?"
)
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<adapter>\w+)\.(?P<what>\w+)")
_ORIGINAL = re.compile(r".+\.original_module\..+")

MERGE = "Merge it into its base model (peft: merge_and_unload, then save_pretrained) and give that"
ONE_DIMENSIONAL = "one-dimensional (a bias, a norm or another vector)"


def unwrapped(name: str) -> str:
    """The module's or tensor's name without what torch.compile, DDP, FSDP, checkpointing and TRL put into it."""
    return _WRAPPERS.sub("", name)


@dataclass
class AdapterTensors:
    """An adapter's tensors by what they are for.

    `factors` are by module and whether they are an embedding's, each by its side: A, B or magnitude_vector; `saved` are
    whole tensors by the base's names; `vectors` are among `skipped`.
    """

    factors: dict[tuple[str, bool], dict[str, TensorEntry]] = field(default_factory=dict)
    saved: dict[str, TensorEntry] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    vectors: list[TensorEntry] = field(default_factory=list)

    def put_aside(self, entry: TensorEntry) -> None:
        """Leave a vector out of the matrices."""
        self.vectors.append(entry)
        self.skipped.append(Skipped.of(entry, ONE_DIMENSIONAL, "one_dimensional"))


def sort_tensors(entries: Iterable[TensorEntry], file: str) -> AdapterTensors:
    """File every tensor of an adapter.

    Raises:
        CheckpointError: a tensor is there twice, or a factor is empty.
        UnsupportedError: a variant of LoRA that is not read, or more than one adapter.
    """
    found, adapters = AdapterTensors(), set[str]()
    for entry in entries:
        name = unwrapped(unwrapped(entry.name).removeprefix(_PREFIX))
        if match := _FACTOR.fullmatch(name):
            _note(adapters, match["adapter"], file)
            if match["what"] == "bias":  # `lora_bias`: an update of the layer's bias
                found.put_aside(entry)
                continue
            side = match["kind"].removeprefix("embedding_")
            _check_filled(entry, file)
            embedding = match["kind"].startswith("embedding_")
            _put(found.factors.setdefault((match["module"], embedding), {}), side, entry, file)
        elif "lora_" in name:
            problem = f"the tensor {printable(name)} belongs to a variant of LoRA that is not read"
            raise UnsupportedError(problem, file=file, remedy=MERGE)
        elif _ORIGINAL.fullmatch(name):
            found.skipped.append(Skipped.of(entry, "the base's own copy of a module that is saved whole", "buffer"))
        else:
            if match := _SAVED.fullmatch(name):
                _note(adapters, match["adapter"], file)
                name = f"{match['module']}.{match['what']}"
            if len(entry.shape) > 1:
                _put(found.saved, name, entry, file)
            else:
                _check_filled(entry, file)
                found.put_aside(entry)
    _join_magnitudes(found)
    return found


def _note(adapters: set[str], name: str | None, file: str) -> None:
    """Note the adapter's name in a tensor's name; of two adapters nothing says which counts."""
    if name is not None:
        adapters.add(name)
    if len(adapters) > 1:
        names = " and ".join(sorted(printable(adapter, 40) for adapter in adapters))
        raise UnsupportedError(f"the file holds several adapters: {names}", file=file, remedy=MERGE)


def _join_magnitudes(found: AdapterTensors) -> None:
    """File DoRA's magnitudes with the factors of their module: an embedding's have no mark of their own."""
    for module, embedding in [key for key, sides in found.factors.items() if set(sides) == {"magnitude_vector"}]:
        of_embedding = found.factors.get((module, not embedding))
        if of_embedding is not None:
            of_embedding |= found.factors.pop((module, embedding))


def _put(place: dict[str, TensorEntry], key: str, entry: TensorEntry, file: str) -> None:
    if key in place:
        problem = f"the same tensor as {printable(place[key].name)} under another name"
        raise CheckpointError(
            problem, file=file, tensor=printable(entry.name), remedy="Save the adapter again with peft"
        )
    place[key] = entry


def _check_filled(entry: TensorEntry, file: str) -> None:
    if 0 in entry.shape:
        problem = (
            "the adapter's tensor is empty: the parameters were not gathered before saving, as under DeepSpeed ZeRO-3"
        )
        remedy = (
            "Save it again with the parameters gathered (stage3_gather_16bit_weights_on_model_save, zero_to_fp32.py)"
        )
        raise CheckpointError(problem, file=file, tensor=printable(entry.name), remedy=remedy)
