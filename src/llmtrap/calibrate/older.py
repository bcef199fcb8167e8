"""Calibration reports of the first schema, turned into the present one: nothing is added that they did not know."""

from __future__ import annotations

from typing import Any, Final

OLDER: Final = "llmtrap.calibration/1"
_ALPHA = {"value": "alpha", "sigma": "alpha_sigma", "ks": "alpha_ks", "xmin": "alpha_xmin", "tail": "tail"}
_TRAPS = {"count": "traps", "reliable": "traps_reliable"}
_SAME = ("centred", "mean_shift", "low", "high", "kurtosis", "max_sigmas", "mean_ratio")
_OWN = ("name", "shape", "entries", "edge_ratio", "centred_edge_ratio", "mp_ks", "mp_p")
_UNKNOWN = dict.fromkeys(("entry_ratio", "mean", "edge"))


def is_layer(given: Any) -> bool:
    """Whether a matrix is written as the first schema wrote it."""
    return isinstance(given, dict) and "alpha_reliable" in given


def layer(old: dict[str, Any]) -> dict[str, Any]:
    """A matrix. Its norms are left out: the rest of its spectrum was not kept."""
    traps = {new: old.get(name) for new, name in _TRAPS.items()} | {name: old.get(name) for name in _SAME}
    deviation = old.get("mp_sigma")
    variance = deviation**2 if isinstance(deviation, float) else None
    alpha = {new: old.get(name) for new, name in _ALPHA.items()}
    return {name: old.get(name) for name in _OWN} | {
        "alpha": alpha | {"reliable": old["alpha_reliable"], "band": None},
        "traps": traps | _UNKNOWN | {"bulk_variance": variance, "method": "measured", "rule": "tracy-widom"},
        "spectrum": None,
        "non_finite": None,
        "weight_entropy": old.get("entropy"),
    }


def report(old: dict[str, Any], schema: str) -> dict[str, Any]:
    """A whole report: a run held its checkpoints with their phases, which are made anew from the accuracies."""
    return old | {"schema": schema, "runs": [_run(run) for run in old.get("runs", ())]}


def _run(old: dict[str, Any]) -> dict[str, Any]:
    points = [point["measured"] for point in old["checkpoints"]]
    return {name: old[name] for name in ("recipe", "seed", "source", "scored")} | {"checkpoints": points}
