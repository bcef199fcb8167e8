"""From a catalogue to its weight matrices: every tensor is read as matrices, or skipped with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmtrap.checkpoint.config import architectures, flag
from llmtrap.checkpoint.encodings import StoredTensor, claim_all
from llmtrap.checkpoint.encodings.quantised import leftover, refuse_stated, refuse_unread
from llmtrap.checkpoint.families import Facts, Family, gather_facts
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.naming import Module, Place, load_grammar, name_places
from llmtrap.checkpoint.shapes import arrange, holds_weights, widest_side
from llmtrap.checkpoint.slices import Slicer
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry
from llmtrap.errors import CheckpointError

MAX_MATRICES = 160_000
_OUTPUT_MODELS = ("LMHeadModel", "ForCausalLM", "ForConditionalGeneration", "ForMaskedLM", "ForPreTraining")


@dataclass(frozen=True)
class Found:
    """The weight matrices of a checkpoint in file order, what is skipped and why, and the family that it is of.

    `unknown` are the modules whose names say no role that is known; `notes` say what was asked for and not done.
    """

    matrices: tuple[WeightMatrix, ...]
    skipped: tuple[Skipped, ...]
    family: str
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_matrices(catalogue: Catalogue, *, split_fused: bool = False, family: Family | None = None) -> Found:
    """Name every weight matrix of a checkpoint, from headers and configuration alone.

    Each tensor of the catalogue is a part of at least one matrix (`WeightMatrix.tensors`) or is in `skipped`, and never
    both; files that were left aside follow the tensors in `skipped`.

    Args:
        catalogue: what the headers say.
        split_fused: give gate and up, or q, k and v, of a fused tensor apart where its family says how.
        family: a family of the user's own.

    Raises:
        CheckpointError: an encoding's tensors contradict one another, or there are more than MAX_MATRICES.
        UnsupportedError: a quantisation that is not read.
    """
    refuse_stated(catalogue)
    taken, free = claim_all(catalogue)
    refuse_unread(catalogue, taken, free)
    arranged = arrange(taken, catalogue.config)
    if arranged.weights:
        _check_count(len(arranged.weights), arranged.weights[-1])
    facts = gather_facts(catalogue.config, [stored.module for stored in taken], family)
    places = _places(arranged.weights, facts, catalogue)
    slicer = Slicer(facts, catalogue.config, _downs(arranged.weights, places), split=split_fused)
    matrices: dict[str, WeightMatrix] = {}
    skipped = [*arranged.left_out, *_left_over(free, widest_side(taken))]
    for stored in arranged.weights:
        place = places[stored.name]
        stack = len(stored.shape) == 3
        _check_count(len(matrices) + slicer.count(stored, place, stack=stack), stored)
        for matrix in slicer.matrices(stored, place, stack=stack):
            # Two tensors of one module name (X and X.weight): the tensor's own name is always unique.
            unique = matrix if matrix.id not in matrices else replace(matrix, id=_free_id(matrix, matrices))
            matrices[unique.id] = unique
    _share(matrices, catalogue.shared, places)
    _tie(matrices, catalogue.config, facts)
    order = _order(catalogue.tensors, {item.tensor for item in skipped})
    skipped.sort(key=lambda item: order[item.tensor])
    unknown = tuple(printable(stored.module) for stored in arranged.weights if not places[stored.name].known)
    return Found(tuple(matrices.values()), (*skipped, *catalogue.skipped), facts.name, unknown, _notes(slicer))


def _order(names: Iterable[str], shown: set[str]) -> dict[str, int]:
    """The positions of those names that are shown as these; few are, and few are not shown as they are."""
    order = {name: position for position, name in enumerate(names) if name in shown}
    if len(order) < len(shown):
        order = {name: position for position, name in enumerate(map(printable, names))}
    return order


def _places(weights: Sequence[StoredTensor], facts: Facts, catalogue: Catalogue) -> dict[str, Place]:
    """The place of every weight, by its tensor's name, and of every other name that a tensor has."""
    modules = {stored.name: Module(stored.module, _shape(stored)) for stored in weights}
    for name, others in catalogue.shared.items():
        if name in modules:
            modules |= {other: Module(other.removesuffix(".weight"), modules[name].shape) for other in others}
    grammar = load_grammar().extended(parts=facts.parts, roles=facts.roles)
    return dict(zip(modules, name_places(list(modules.values()), grammar, catalogue.config), strict=True))


def _shape(stored: StoredTensor) -> tuple[int, ...]:
    """The shape that tells what a weight is: that of a kernel, measured as a matrix, has four sides or more."""
    if len(stored.shape) == 2 and len(stored.parts) == 1 and len(stored.parts[0].shape) > 2:
        kernel = stored.parts[0].shape
        if kernel[0] != stored.shape[0]:
            return stored.shape  # a table without its sides of one
        return (*kernel, 1) if len(kernel) == 3 else kernel
    return stored.shape


def _downs(weights: Sequence[StoredTensor], places: dict[str, Place]) -> dict[str, tuple[int, int]]:
    """Id and shape of the matrices that lead back from gate and up."""
    return {
        places[stored.name].id: (stored.rows, stored.columns)
        for stored in weights
        if places[stored.name].role.endswith(".down")
    }


def _notes(slicer: Slicer) -> tuple[str, ...]:
    """What --split-fused left whole."""
    return tuple(
        f"{count} × {role} left whole: it is not known how its parts lie, or the sizes do not agree"
        for role, count in slicer.left_whole.items()
    )


def _check_count(count: int, stored: StoredTensor) -> None:
    """Refuse a stack that claims more experts than memory has room for their names."""
    if count > MAX_MATRICES:
        problem = f"with this tensor there are {count} weight matrices, more than any checkpoint has ({MAX_MATRICES})"
        file = stored.parts[0].span.file
        raise CheckpointError(problem, file=file, tensor=printable(stored.name), remedy="Audit the original checkpoint")


def _left_over(free: Mapping[str, TensorEntry], widest: int) -> Iterator[Skipped]:
    """What no encoding took: integers that must be weights are told from buffers."""
    for entry in free.values():
        if holds_weights(entry, widest):
            yield Skipped.of(entry, f"weights in {entry.dtype}, and nothing says how they are to be read", "unmeasured")
        else:
            yield leftover(entry)


def _free_id(matrix: WeightMatrix, taken: dict[str, WeightMatrix]) -> str:
    suffix = "" if matrix.index is None else f".{matrix.index}"
    id_ = printable(matrix.tensor) + suffix
    count = len(taken)  # from here and not from 2: a million names that look alike must not cost a million squared
    while id_ in taken:
        id_ = f"{printable(matrix.tensor)}{suffix} ({count})"
        count += 1
    return id_


def _share(
    matrices: dict[str, WeightMatrix], shared: Mapping[str, tuple[str, ...]], places: Mapping[str, Place]
) -> None:
    """Give matrices that are stored once under several names the ids of the other names as well."""
    if not shared:
        return
    for id_, matrix in matrices.items():
        others = [places[name] for name in shared.get(matrix.tensor, ())]
        if others and matrix.index is not None and matrix.expert is not None:
            others = [place.for_expert(matrix.expert) for place in others]
        if others:
            matrices[id_] = replace(matrix, aliases=(*matrix.aliases, *(place.id for place in others)))


def _tie(matrices: dict[str, WeightMatrix], config: dict[str, Any], facts: Facts) -> None:
    """Give the embedding the unembedding's name too, where both are the same weights and only one is stored."""
    tied = flag(config, "tie_word_embeddings")
    if any("unembedding" in matrix.aliases for matrix in matrices.values()):
        return
    embedding = next((id_ for id_ in ("embedding", "decoder.embedding") if id_ in matrices), None)
    if embedding is None or "unembedding" in matrices or not (facts.tied if tied is None else tied):
        return
    names = architectures(config)
    if names and not any(name.endswith(_OUTPUT_MODELS) for name in names):
        return
    matrices[embedding] = replace(matrices[embedding], aliases=("unembedding",))
