"""What is measured of one checkpoint, as it is written to disk and shown: spectra by layer, and the rivals."""

from __future__ import annotations

from pydantic import Field

from llmtrap.models import Count, Model


class Layer(Model):
    """One weight matrix, by the audit's own code."""

    name: str
    shape: tuple[Count, Count]
    alpha: float | None
    alpha_sigma: float | None
    alpha_ks: float | None
    alpha_xmin: float | None
    tail: Count
    alpha_reliable: bool
    traps: Count = Field(description="all traps, median over shuffles")
    centred: Count = Field(description="traps of cause entry or heavy_tail")
    entries: Count = Field(description="of the first shuffle's traps, those of cause entry")
    mean_shift: Count
    low: Count
    high: Count
    traps_reliable: bool
    edge_ratio: float = Field(description="largest shuffled eigenvalue / Marchenko-Pastur edge of the bulk variance")
    centred_edge_ratio: float = Field(description="the same after the mean is taken out before the shuffle")
    kurtosis: float
    max_sigmas: float = Field(description="largest |w - m| in deviations of the bulk")
    mean_ratio: float
    mp_ks: float = Field(description="Kolmogorov-Smirnov distance of the shuffled bulk from Marchenko-Pastur")
    mp_p: float
    mp_sigma: float = Field(description="deviation of the bulk entries")
    spectral_norm: float
    frobenius_norm: float
    stable_rank: float
    entropy: float = Field(description="absolute weight entropy")


class Measurement(Model):
    """One checkpoint of one run."""

    step: Count
    seconds: float = Field(description="CPU seconds of training so far")
    train_accuracy: float
    test_accuracy: float
    train_loss: float
    test_loss: float
    far_accuracy: float | None = Field(default=None, description="on examples outside the training distribution")
    l2: float
    circuit_complexity: float
    sparsity: tuple[float, ...]
    dead: tuple[Count, ...]
    class_share: tuple[float, ...]
    layers: tuple[Layer, ...]
