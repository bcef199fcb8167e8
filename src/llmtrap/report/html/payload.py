"""The numbers behind the page: columns instead of rows, few digits, repeated strings once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from llmtrap.report.against import Comparison, changed_first
from llmtrap.report.comparison_text import alpha_shift_words, shift_words
from llmtrap.report.document import Matrix, Report
from llmtrap.report.explanations import EXPLANATIONS
from llmtrap.report.facts import block, is_at_edge, kind, state, strongest
from llmtrap.report.formatting import printable
from llmtrap.report.rarity.measures import MEASURES
from llmtrap.report.rarity.peers import departures
from llmtrap.report.rarity.reference import shipped_reference
from llmtrap.report.rarity.standing import Standing
from llmtrap.report.verdict import cause_words, finding
from llmtrap.report.worst_rows import why_cell
from llmtrap.spectra.measured import Histogram

# Names longer than this are cut in the middle; the JSON report has them whole.
LONGEST_NAME = 400
_DIGITS = 5
# The certificate's conditions, as docs/definitions.md has them, to show beside the values that were held against them.
CERTIFICATE = {"entryRatio": 0.25, "meanRatio": 0.25, "kurtosisFactor": 1.25, "columnNorm": 0.3}


def payload(report: Report, comparison: Comparison | None = None) -> dict[str, Any]:
    """Everything the page's scripts show, as JSON types.

    Returns:
        `columns`: one array a quantity, one element a matrix (`None` where there is none); a column of repeated
        strings is `{"values", "index"}`. `esd` and `shuffled`: histograms (`_histograms`). `traps`, `broken` and
        `aliases`: of the few matrices that have them, by index. `peers`: what the peers of each matrix lead one to
        expect (`_peers`). `worst`: indices in the table's order.
        `against`: columns of the comparison with a base, or None.
    """
    matrices = report.matrices
    return {
        "matrices": len(matrices),
        "rule": report.settings.trap_rule,
        "certificate": CERTIFICATE,
        "texts": {key: item.short for key, item in EXPLANATIONS.items()},
        "bands": alpha_bands(report),
        "columns": {
            **_names(matrices),
            **_alpha(matrices),
            **_spectrum(matrices),
            **_traps(matrices),
            "grave": _grave(report),
        },
        "esd": _histograms([m.spectrum.histogram if m.spectrum is not None else None for m in matrices]),
        "shuffled": _histograms(
            [m.traps.shuffled.histogram if m.traps and m.traps.shuffled is not None else None for m in matrices]
        ),
        "traps": {
            index: [
                [
                    short(t.eigenvalue),
                    short(t.z),
                    short(t.strength),
                    t.cause.kind,
                    cause_words(t, m),
                    short(t.p_value, 2),
                ]
                for t in m.traps.found
            ]
            for index, m in enumerate(matrices)
            if m.traps is not None and m.traps.found
        },
        "broken": {index: finding(m) for index, m in enumerate(matrices) if m.non_finite is not None},
        "aliases": {index: [_name(a) for a in m.aliases] for index, m in enumerate(matrices) if m.aliases},
        "peers": _peers(matrices),
        "worst": changed_first(matrices, comparison),
        "against": None if comparison is None else _against(matrices, comparison),
    }


def alpha_bands(report: Report) -> dict[str, list[float]] | None:
    """What published models have of α, by the kinds of this report: 5 %, the middle and 95 % of the median lineage.

    None where the report was held against no reference, or against one that did not ship with the package.
    """
    used, shipped = report.summary.reference, shipped_reference()
    if used is None or used.name != shipped.name or not report.settings.alpha:
        return None
    bands = {}
    for matrix in report.matrices:
        name = _name(kind(matrix))
        if name not in bands and (held := Standing(shipped).middle(matrix.role, "alpha")) is not None:
            bands[name] = [round(value, 3) for value in held]
    return bands


def script_json(value: object) -> str:
    """JSON that can stand in a `<script type="application/json">`: no `<`, `>` or `&`, and only ASCII."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _names(matrices: Sequence[Matrix]) -> dict[str, Any]:
    return {
        "id": [_name(m.id) for m in matrices],
        "tensor": _coded(_name(m.tensor) for m in matrices),
        "kind": _coded(_name(kind(m)) for m in matrices),
        "part": _coded(_name(m.part) for m in matrices),
        "block": _coded(_name(block(m)) for m in matrices),
        "layer": [m.layer for m in matrices],
        "expert": [m.expert for m in matrices],
        "rows": [m.shape[0] for m in matrices],
        "columns": [m.shape[1] for m in matrices],
        "encoding": _coded(_name(m.encoding) for m in matrices),
        "state": _coded(state(m) for m in matrices),
        "why": _coded(why_cell(m) for m in matrices),
    }


def _alpha(matrices: Sequence[Matrix]) -> dict[str, Any]:
    def of(get: Callable[[Any], Any]) -> list[Any]:
        return [short(get(m.alpha)) if m.alpha is not None else None for m in matrices]

    return {
        "alpha": of(lambda a: a.value),
        "sigma": of(lambda a: a.sigma),
        "xmin": of(lambda a: a.xmin),
        "ks": of(lambda a: a.ks),
        "tail": of(lambda a: a.tail),
        "alphaLow": of(lambda a: a.low),
        "alphaHigh": of(lambda a: a.high),
        "noiseLow": of(lambda a: a.noise and a.noise.low),
        "noiseHigh": of(lambda a: a.noise and a.noise.high),
        "reliable": of(lambda a: int(a.reliable)),
        "band": _coded(m.alpha.band if m.alpha is not None and m.alpha.reliable else None for m in matrices),
        "reason": _coded(m.alpha.reason if m.alpha is not None else None for m in matrices),
    }


def _spectrum(matrices: Sequence[Matrix]) -> dict[str, Any]:
    def of(get: Callable[[Any], Any]) -> list[Any]:
        return [short(get(m.spectrum)) if m.spectrum is not None else None for m in matrices]

    return {
        "spectralNorm": of(lambda s: s.spectral_norm),
        "frobeniusNorm": of(lambda s: s.frobenius_norm),
        "stableRank": of(lambda s: s.stable_rank),
        "hardRank": of(lambda s: s.hard_rank),
        "entropy": of(lambda s: s.entropy),
        "alphaWeighted": of(lambda s: s.alpha_weighted),
        "precision": _coded(m.spectrum.precision if m.spectrum is not None else None for m in matrices),
    }


def _traps(matrices: Sequence[Matrix]) -> dict[str, Any]:
    def of(get: Callable[[Any], Any]) -> list[Any]:
        return [short(get(m.traps)) if m.traps is not None else None for m in matrices]

    top = [strongest(m) for m in matrices]
    return {
        "method": _coded(m.traps.method if m.traps is not None else None for m in matrices),
        "centred": of(lambda t: t.centred),
        "meanShift": of(lambda t: t.mean_shift),
        "low": of(lambda t: t.low),
        "high": of(lambda t: t.high),
        "atEdge": [int(is_at_edge(m)) for m in matrices],
        "trusted": of(lambda t: int(t.reliable)),
        "strength": [None if trap is None else short(trap.strength) for trap in top],
        "z": [None if trap is None else short(trap.z) for trap in top],
        "kurtosis": of(lambda t: t.kurtosis),
        "maxSigmas": of(lambda t: t.max_sigmas),
        "entryRatio": of(lambda t: t.entry_ratio),
        "meanRatio": of(lambda t: t.mean_ratio),
        "variance": of(lambda t: t.bulk_variance),
        "edge": of(lambda t: t.edge),
        "topZ": of(lambda t: t.top_z),
        "topZLow": of(lambda t: t.top_z_low),
        "topZHigh": of(lambda t: t.top_z_high),
        "shuffles": of(lambda t: t.shuffles),
        "shuffledKs": of(lambda t: t.shuffled.ks if t.shuffled is not None else None),
        "shuffledP": of(lambda t: t.shuffled.p_value if t.shuffled is not None else None),
    }


def _against(matrices: Sequence[Matrix], comparison: Comparison) -> dict[str, Any]:
    shifts = [comparison.shifts.get(m.id) for m in matrices]
    return {
        "base": _name(comparison.base.target.name),
        "change": _coded("added" if s is None else s.traps for s in shifts),
        "words": _coded(shift_words(s) for s in shifts),
        "why": _coded("" if s is None else s.why for s in shifts),
        "alphaShift": [None if s is None else short(s.alpha) for s in shifts],
        "alphaWords": _coded("" if s is None or s.alpha is None else alpha_shift_words(s) for s in shifts),
        "moved": [0 if s is None else int(s.moved) for s in shifts],
        "strengthShift": [None if s is None else short(s.strength) for s in shifts],
        "stableRankShift": [None if s is None else short(s.stable_rank) for s in shifts],
        "esd": _histograms(
            [None if s is None or s.base.spectrum is None else s.base.spectrum.histogram for s in shifts]
        ),
    }


def _grave(report: Report) -> list[int]:
    """1 for each matrix that a finding calls broken or unusual; a finding that names only some by what it is about."""
    grave = [found for found in report.findings if found.weight != "usual"]
    named = {name for found in grave for name in found.matrices}
    trapped = any(found.kind == "trapped_share" for found in grave)
    return [int(m.id in named or (trapped and state(m) == "trapped")) for m in report.matrices]


def _peers(matrices: Sequence[Matrix]) -> dict[str, Any]:
    """For each measure what the peers lead one to expect, z of the matrix, and which of them stand out, by index."""
    held = departures(matrices)
    of = {name: {i: by[name] for i, by in held.items() if name in by} for name in MEASURES}
    return {
        name: {
            "label": measure.label,
            "expected": [short(measure.shown(of[name][i].expected), 4) if i in of[name] else None for i in places],
            "z": [short(of[name][i].z, 3) if i in of[name] else None for i in places],
            "out": [i for i, departure in of[name].items() if departure.stands_out],
            "peers": [of[name][i].peers if i in of[name] else None for i in places],
        }
        for name, measure in MEASURES.items()
        if of[name] and (places := range(len(matrices)))
    }


def _histograms(histograms: Sequence[Histogram | None]) -> dict[str, Any]:
    """First and last edge and the counts of each; the edges themselves only where they are not evenly spaced in log."""
    return {
        "first": [None if h is None else short(h.edges[0], 7) for h in histograms],
        "last": [None if h is None else short(h.edges[-1], 7) for h in histograms],
        "counts": [None if h is None else list(h.counts) for h in histograms],
        "edges": {
            index: [short(edge, 7) for edge in h.edges]
            for index, h in enumerate(histograms)
            if h is not None and not _is_geometric(h.edges)
        },
    }


def _is_geometric(edges: Sequence[float]) -> bool:
    if edges[0] <= 0:
        return False
    step = math.log(edges[-1] / edges[0]) / (len(edges) - 1)
    return all(abs(math.log(right / left) - step) < 1e-4 * step for left, right in pairwise(edges))


def _coded(strings: Iterable[str | None]) -> dict[str, Any]:
    places: dict[str | None, int] = {}
    index = [places.setdefault(string, len(places)) for string in strings]
    return {"values": list(places), "index": index}


def _name(name: str) -> str:
    return printable(name, LONGEST_NAME)


def short(value: float | None, digits: int = _DIGITS) -> float | None:
    """A number to few digits, whole where it is."""
    if value is None or isinstance(value, int):
        return value
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
