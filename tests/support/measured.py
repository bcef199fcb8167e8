"""Measures of a calibration's matrices, made up."""

from __future__ import annotations

from llmtrap.calibrate.measurement import Layer
from llmtrap.spectra.measured import Alpha, Traps


def layer(name: str, centred: int, mean_shift: int) -> Layer:
    """One matrix with so many centred traps and mean shifts."""
    return Layer(
        name=name,
        shape=(200, 784),
        alpha=Alpha(
            value=1.8 if centred > 5 else 4.0, sigma=0.1, xmin=1.0, ks=0.05, tail=40, band=None, reliable=True
        ),
        spectrum=None,
        traps=Traps(
            count=centred + mean_shift, centred=centred, mean_shift=mean_shift, low=centred, high=centred + mean_shift,
            reliable=True, kurtosis=2.0 + 10 * centred, max_sigmas=4.0 + centred, method="measured",
            rule="tracy-widom", entry_ratio=None, mean_ratio=0.1, mean=None, bulk_variance=1.0, edge=None,
        ),
        non_finite=None,
        entries=centred,
        edge_ratio=1.0 + centred + mean_shift,
        centred_edge_ratio=1.0 + centred,
        mp_ks=0.01 * (1 + centred),
        mp_p=1.0,
        weight_entropy=100.0 - centred,
    )  # fmt: skip
