"""Measures of a calibration's matrices, made up."""

from __future__ import annotations

from llmtrap.calibrate.measurement import Layer


def layer(name: str, centred: int, mean_shift: int) -> Layer:
    """One matrix with so many centred traps and mean shifts."""
    return Layer(
        name=name,
        shape=(200, 784),
        alpha=1.8 if centred > 5 else 4.0,
        alpha_sigma=0.1,
        alpha_ks=0.05,
        alpha_xmin=1.0,
        tail=40,
        alpha_reliable=True,
        traps=centred + mean_shift,
        centred=centred,
        entries=centred,
        mean_shift=mean_shift,
        low=centred,
        high=centred + mean_shift,
        traps_reliable=True,
        edge_ratio=1.0 + centred + mean_shift,
        centred_edge_ratio=1.0 + centred,
        kurtosis=2.0 + 10 * centred,
        max_sigmas=4.0 + centred,
        mean_ratio=0.1,
        mp_ks=0.01 * (1 + centred),
        mp_p=1.0,
        mp_sigma=1.0,
        spectral_norm=9.0,
        frobenius_norm=30.0,
        stable_rank=11.0,
        entropy=100.0 - centred,
    )
