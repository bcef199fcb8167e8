"""From a catalogue to its weight matrices: every tensor is read as matrices, or skipped with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmtrap.checkpoint.config import flag
from llmtrap.checkpoint.encodings import StoredTensor, claim_all
from llmtrap.checkpoint.encodings.quantised import leftover, refuse_stated, refuse_unread
from llmtrap.checkpoint.families import Family, Matcher, choose_family
from llmtrap.checkpoint.families.table import Rule
from llmtrap.checkpoint.matrices import Stripes, WeightMatrix
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.shapes import arrange, holds_weights, widest_side
from llmtrap.checkpoint.splits import split_stripes
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry
from llmtrap.errors import CheckpointError

_NUMBER = re.compile(r"(?<![A-Za-z0-9])\d{1,9}(?![0-9])")
MAX_MATRICES = 160_000
_OUTPUT_MODELS = ("LMHeadModel", "ForCausalLM", "ForConditionalGeneration", "ForMaskedLM", "ForPreTraining")

Values = dict[str, str]


@dataclass(frozen=True)
class Found:
    """The weight matrices of a checkpoint in file order, what is skipped and why, and the family that named them."""

    matrices: tuple[WeightMatrix, ...]
    skipped: tuple[Skipped, ...]
    family: str


def find_matrices(catalogue: Catalogue, *, split_fused: bool = False) -> Found:
    """Name every weight matrix of a checkpoint, from headers and configuration alone.

    Each tensor of the catalogue is a part of at least one matrix (`WeightMatrix.tensors`) or is in `skipped`, and never
    both; files that were left aside follow the tensors in `skipped`.

    Args:
        catalogue: what the headers say.
        split_fused: give gate and up, or q, k and v, of a fused tensor apart where its family says how.

    Raises:
        CheckpointError: an encoding's tensors contradict one another, or there are more than MAX_MATRICES.
        UnsupportedError: a quantisation that is not read.
    """
    refuse_stated(catalogue)
    taken, free = claim_all(catalogue)
    refuse_unread(catalogue, taken, free)
    arranged = arrange(taken, catalogue.config)
    family = choose_family(catalogue.config, [(item.module, item.encoding) for item in taken if len(item.shape) > 1])
    matcher = Matcher(family)
    matrices: dict[str, WeightMatrix] = {}
    skipped = [*arranged.left_out, *_left_over(free, widest_side(taken))]
    for stored in arranged.weights:
        rule, values = matcher.find(stored.module, stored.encoding) or (_GENERIC_RULE, {})
        if rule.skip:
            skipped += [Skipped.of(part, rule.skip, "one_dimensional") for part in stored.parts]
            continue
        if len(stored.shape) == 3 and "{expert}" not in rule.id:
            rule = replace(rule, id="", split=None)
        named = list(_name(stored, rule, values, family, catalogue.config, split_fused=split_fused))
        _check_count(len(matrices) + len(named), stored)
        if any(matrix.id in matrices for matrix in named):
            named = list(_name(stored, replace(rule, id="", split=None), {}, family, catalogue.config))
        for matrix in named:
            # Two tensors of one module name (X and X.weight): the tensor's own name is always unique.
            unique = matrix if matrix.id not in matrices else replace(matrix, id=_free_id(matrix, matrices))
            matrices[unique.id] = unique
    _share(matrices, catalogue.shared, matcher)
    _tie(matrices, catalogue.config, family)
    order = {name: position for position, name in enumerate(map(printable, catalogue.tensors))}
    skipped.sort(key=lambda item: order[item.tensor])
    return Found(tuple(matrices.values()), (*skipped, *catalogue.skipped), family.name)


def _check_count(count: int, stored: StoredTensor) -> None:
    """Refuse a stack that claims more experts than memory has room for their names."""
    if count > MAX_MATRICES:
        problem = f"with this tensor there are {count} weight matrices, more than any checkpoint has ({MAX_MATRICES})"
        file = stored.parts[0].span.file
        raise CheckpointError(problem, file=file, tensor=printable(stored.name), remedy="Audit the original checkpoint")


_GENERIC_RULE = Rule(pattern=re.compile(".*"), id="")


def _left_over(free: Mapping[str, TensorEntry], widest: int) -> Iterator[Skipped]:
    """What no encoding took: integers that must be weights are told from buffers."""
    for entry in free.values():
        if holds_weights(entry, widest):
            yield Skipped.of(entry, f"weights in {entry.dtype}, and nothing says how they are to be read", "unmeasured")
        else:
            yield leftover(entry)


def _name(
    stored: StoredTensor,
    rule: Rule,
    values: Values,
    family: Family,
    config: dict[str, Any],
    *,
    split_fused: bool = False,
) -> Iterator[WeightMatrix]:
    """The matrices of one stored tensor: one, one an expert, and those split into their parts."""
    parts = split_stripes(rule.split, family, config, stored.rows, stored.columns) if split_fused else {}
    for index, expert, rows in _slices(stored, rule, family, config):
        numbered = values if expert is None else {**values, "expert": str(expert)}
        id_, layer, role = _canonical(rule, stored, numbered)
        height = stored.rows if rows is None else rows.count
        number = _integer(numbered.get("expert"))
        whole = WeightMatrix(id_, layer, role, number, (height, stored.columns), stored, index, rows)
        if not parts or rows is not None or rule.split is None:
            yield whole
            continue
        for part, stripes in parts.items():
            named = replace(whole, id=f"{id_.rpartition('.')[0]}.{part}", role=f"{role.rpartition('.')[0]}.{part}")
            if rule.split.axis == "rows":
                yield replace(named, shape=(stripes.count, stored.columns), rows=stripes)
            else:
                yield replace(named, shape=(stored.rows, stripes.count), columns=stripes)


def _slices(
    stored: StoredTensor, rule: Rule, family: Family, config: dict[str, Any]
) -> Iterator[tuple[int | None, int | None, Stripes | None]]:
    """(index on axis 0, expert, rows) of every matrix of a stored tensor."""
    if len(stored.shape) == 3:
        _check_count(stored.shape[0], stored)
        for expert in range(stored.shape[0]):
            yield expert, expert, None
        return
    experts = family.number(config, rule.stack_rows) if rule.stack_rows else None
    if experts is None or stored.rows % experts:
        yield None, None, None
        return
    _check_count(experts, stored)
    height = stored.rows // experts
    for expert in range(experts):
        yield None, expert, Stripes(expert * height, height, height, height)


def _canonical(rule: Rule, stored: StoredTensor, values: Values) -> tuple[str, int | None, str]:
    """Id, layer and role: by the rule's template, or from the module's own name."""
    if rule.id and ("expert" in values or "{expert}" not in rule.id):
        return rule.id.format_map(values), _integer(values.get("layer")), rule.role.format_map(values)
    name = printable(stored.module)
    number = _NUMBER.search(stored.module)
    words = [word for word in name.split(".") if not word.isdecimal()]
    id_ = f"{name}.{values['expert']}" if "expert" in values else name
    return id_, int(number.group()) if number else None, words[-1] if words else name


def _free_id(matrix: WeightMatrix, taken: dict[str, WeightMatrix]) -> str:
    suffix = "" if matrix.index is None else f".{matrix.index}"
    id_ = printable(matrix.tensor) + suffix
    count = len(taken)  # from here and not from 2: a million names that look alike must not cost a million squared
    while id_ in taken:
        id_ = f"{printable(matrix.tensor)}{suffix} ({count})"
        count += 1
    return id_


def _share(matrices: dict[str, WeightMatrix], shared: Mapping[str, tuple[str, ...]], matcher: Matcher) -> None:
    """Give matrices that are stored once under several names the ids of the other names as well."""
    for id_, matrix in matrices.items():
        for name in shared.get(matrix.tensor, ()):
            module = name.removesuffix(".weight")
            found = matcher.find(module, matrix.encoding)
            alias = found[0].id.format_map(found[1]) if found and matrix.expert is None else printable(module)
            matrices[id_] = replace(matrices[id_], aliases=(*matrices[id_].aliases, alias))


def _tie(matrices: dict[str, WeightMatrix], config: dict[str, Any], family: Family) -> None:
    """Give the embedding the unembedding's name too, where both are the same weights and only one is stored."""
    tied = flag(config, "tie_word_embeddings")
    if any("unembedding" in matrix.aliases for matrix in matrices.values()):
        return
    if "embedding" not in matrices or "unembedding" in matrices or not (family.tied if tied is None else tied):
        return
    listed = config.get("architectures")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if names and not any(name.endswith(_OUTPUT_MODELS) for name in names):
        return
    matrices["embedding"] = replace(matrices["embedding"], aliases=("unembedding",))


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)
