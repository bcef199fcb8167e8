"""Weights against weights: pair by id, compare bytes, and measure what differs, on both sides, once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llmtrap.audit import AuditSettings
from llmtrap.checkpoint import Checkpoint, Source, Stripes, WeightMatrix
from llmtrap.checkpoint.adapted import AdaptedTensor
from llmtrap.gate.configurations import configuration_notes
from llmtrap.gate.document import OutsideTensor
from llmtrap.gate.files_beside import is_file, own_files
from llmtrap.gate.matching import CheckpointContents, Known, MatchedSides, match
from llmtrap.gate.measure_sides import GateOptions, measure_pairs
from llmtrap.gate.other_tensors import compare_outside
from llmtrap.gate.pairing import MatrixPair, pair_matrices
from llmtrap.gate.unchanged import same_files, unchanged_matrices
from llmtrap.report.document import Report
from llmtrap.report.formatting import plural, printable


def compare_checkpoints(
    now: Checkpoint, was: Checkpoint, settings: AuditSettings, options: GateOptions
) -> tuple[MatchedSides, Report, Report]:
    """Match two checkpoints; the reports hold what had to be measured.

    Args:
        now: the target.
        was: the base.
        settings: what to measure.
        options: how to run.
    """
    now, was = now.without_tables(), was.without_tables()  # they are compared as what lies outside the matrices
    pairing = pair_matrices(now, was)
    grown = {pair.now.id: pair.grown for pair in pairing.pairs if pair.grown}
    target = CheckpointContents.of_checkpoint(now, pairing.target, None)
    base = CheckpointContents.of_checkpoint(was, pairing.base, None)
    comparable = match(target, base, Known(grown=grown)).same_architecture
    unchanged = _unchanged(now, was, pairing.pairs, options) if comparable else frozenset()
    changed = [pair for pair in pairing.pairs if pair.now.id not in unchanged] if comparable else []
    own_base = frozenset(
        pair.now.id for pair in changed
        if isinstance(pair.now.stored, AdaptedTensor) and pair.now.stored.base is pair.base.stored
    )  # fmt: skip
    measured = measure_pairs(
        now, was, changed, pairing.alone if comparable else (), own_base, replace(settings, paired=True), options
    )
    compared = measured.compared
    known = Known(
        unchanged=unchanged,
        updates={name: it.update for name, it in compared.items() if it.update is not None},
        base_at={name: it.base_at for name, it in compared.items()},
        now_at={name: it.now_at for name, it in compared.items()},
        grown=grown,
    )
    target = CheckpointContents.of_checkpoint(now, pairing.target, measured.report)
    base = CheckpointContents.of_checkpoint(was, pairing.base, measured.base)
    outside = (*compare_outside(now, was), *(_new_rows(pair, now.source) for pair in pairing.pairs if pair.grown))
    matched = match(target, base, known)
    if comparable:
        matched = replace(matched, outside=outside, own_files=own_files(now, was), notes=_notes(now, was))
    else:
        matched = replace(matched, outside=())
    return matched, measured.report, measured.base


def _notes(now: Checkpoint, was: Checkpoint) -> tuple[str, ...]:
    """What lies beside the weights and is not judged."""
    config = configuration_notes(now.catalogue.config, was.catalogue.config)
    return (*config, *_copies_beside(now, was), *_only_in_base(now, was))


def _copies_beside(now: Checkpoint, was: Checkpoint) -> tuple[str, ...]:
    """What is said of the target's other weight files, copies by their names, but for those known to be the base's."""
    equal = {mine for mine, _ in same_files(now.source.files(), was.source.files())}
    copies = [item.tensor for item in now.skipped if item.kind == "file_not_read" and is_file(item)]
    names = [name for name in copies if name.removesuffix(" (file)") not in equal]
    if not names:
        return ()
    named = ", ".join(printable(name, 80) for name in names[:3]) + (", …" if len(names) > 3 else "")
    return (f"{plural(len(names), 'other weight file')} in the target, not looked at: {named}",)


def _only_in_base(now: Checkpoint, was: Checkpoint) -> tuple[str, ...]:
    """What is said of weight files that the base has, the target lacks, and nobody looked at."""
    mine = {item.tensor for item in now.skipped}
    names = [i.tensor for i in was.skipped if i.kind == "unmeasured" and is_file(i) and i.tensor not in mine]
    if not names:
        return ()
    named = ", ".join(printable(name, 80) for name in names[:3]) + (", …" if len(names) > 3 else "")
    return (f"{plural(len(names), 'weight file')} only in the base, not looked at: {named}",)


def _unchanged(now: Checkpoint, was: Checkpoint, pairs: Sequence[MatrixPair], options: GateOptions) -> frozenset[str]:
    """Ids whose bytes equal the base's. What an adapter does not touch is the base's own, and needs no look."""
    own = frozenset(pair.now.id for pair in pairs if pair.now.stored is pair.base.stored)
    rest = [(pair.now, pair.base) for pair in pairs if pair.now.id not in own]
    count = 0

    def advance(_: WeightMatrix) -> None:
        nonlocal count
        count += 1
        options.tell("comparing bytes", count, len(rest))

    same = same_files(now.catalogue.files, was.catalogue.files)
    # Reading is what this waits for: two threads keep one disk or one core's memory busy.
    return own | unchanged_matrices(rest, now.source, was.source, min(2, options.workers), advance, same)


def _new_rows(pair: MatrixPair, source: Source) -> OutsideTensor:
    """The rows that only the target has: broken values, and their largest norm beside that of the others."""
    old, whole = pair.base.shape[0], pair.whole
    shared, added = (
        replace(whole, shape=(count, whole.shape[1]), rows=Stripes(offset, count, count, count))
        for offset, count in ((0, old), (old, pair.grown))
    )
    nan = inf = 0
    largest = [0.0, 0.0]
    for place, part in enumerate((shared, added)):
        for block in part.blocks(source):
            finite = np.isfinite(block)
            if place == 1 and not finite.all():
                nan += int(np.isnan(block).sum())
                inf += int(np.isinf(block).sum())
            squares = np.where(finite, block, 0).astype(np.float64) ** 2
            largest[place] = max(largest[place], math.sqrt(float(squares.sum(axis=1).max(initial=0.0))))
    return OutsideTensor(
        tensor=f"{printable(whole.tensor)} ({plural(pair.grown, 'new row')})", dtype=printable(whole.encoding, 60),
        shape=added.shape, change="grown", nan=nan, inf=inf, scale=largest[1] / largest[0] if largest[0] else None,
    )  # fmt: skip
