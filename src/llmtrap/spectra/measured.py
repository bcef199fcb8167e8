"""What was measured of one matrix: the one type that spectra give, reports hold, and calibrations add to."""

from __future__ import annotations

from operator import lt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmtrap.models import Count, Items, Model
from llmtrap.spectra.settings import MOST_SHUFFLES

Band = Literal["over", "well", "under", "random"]
Method = Literal["certified", "predicted", "measured", "undecided"]
Activity = Literal["inert", "weak", "active", "needed", "harmful"]
CauseKind = Literal["mean_shift", "entry", "heavy_tail"]
Shuffles = Annotated[int, Field(ge=0, le=MOST_SHUFFLES)]


class Histogram(Model):
    """Counts of eigenvalues in logarithmic bins; `edges` has one more element than `counts`."""

    edges: Items[float]
    counts: Items[Count]

    @model_validator(mode="after")
    def _edges_fit_counts(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1 or not self.counts:
            raise ValueError(f"{len(self.counts)} counts need one edge more, not {len(self.edges)}")
        if not all(map(lt, self.edges, self.edges[1:])):
            raise ValueError("edges must increase")
        return self


class NoiseRange(Model):
    """What random matrices of this shape give: the median, and the quantiles at 5 and 95 %."""

    low: float
    median: float
    high: float


class Alpha(Model):
    """The power-law fit of the ESD's tail. `value` is None where there is nothing to fit.

    `low` and `high` enclose the exponents that the spectrum cannot tell apart: over every x_min whose distance is
    within its own noise of the least, and with and without the traps' eigenvalues.
    """

    value: float | None
    sigma: float | None
    xmin: float | None
    ks: float | None
    tail: Count
    band: Band | None = Field(
        description="random: noise explains it; over: below 2; well: 2 to 6; under: above 6; null where not claimed"
    )
    reliable: bool
    reason: str | None = Field(default=None, description="why a fit is unreliable")
    low: float | None = Field(default=None, description="least exponent that the spectrum allows; null where no fit")
    high: float | None = Field(default=None, description="greatest exponent that the spectrum allows")
    noise: NoiseRange | None = Field(default=None, description="the exponent of random matrices of this shape")


class SpectrumNoise(Model):
    """What random matrices of this shape and Frobenius norm give, and how far this one lies from them.

    `distance` is the Kolmogorov–Smirnov distance of the ESD from the Marchenko–Pastur law of the bulk's variance,
    `limit` the distance up to which it is noise's, and `spikes` the eigenvalues beyond the edge of that law.
    """

    spectral_norm: NoiseRange
    stable_rank: NoiseRange
    entropy: NoiseRange
    distance: float
    limit: float
    spikes: Count


class Spectrum(Model):
    """The ESD of WᵀW in numbers; eigenvalues are squared singular values, not divided by N."""

    spectral_norm: float
    frobenius_norm: float
    stable_rank: float
    hard_rank: Count | None = Field(description="null where float32 cannot tell")
    entropy: float
    alpha_weighted: float | None
    log10_spectral_norm: float | None
    rank_deficient: bool
    precision: str = Field(description="float width of the Gram matrix and of the eigensolver, e.g. float32/float64")
    histogram: Histogram | None
    noise: SpectrumNoise | None = None


class WeightWatcherColumns(Model):
    """Further numbers of the same spectrum under the names that WeightWatcher gives them; logarithms are to base 10."""

    log_norm: float | None = Field(default=None, description="log Σλ")
    log_alpha_norm: float | None = Field(default=None, description="log Σλ^α")
    mp_softrank: float | None = Field(default=None, description="Marchenko–Pastur edge of the bulk over λ₁")
    rand_distance: float | None = Field(
        default=None, description="Jensen–Shannon distance from the shuffled ESD; null where no spectrum was shuffled"
    )
    num_pl_spikes: Count | None = Field(default=None, description="eigenvalues in the fitted tail")
    detX_num: Count | None = Field(default=None, description="eigenvalues in the tail of unit determinant (SETOL)")  # noqa: N815
    ERG_gap: Annotated[int, Field(gt=-(2**63), lt=2**63)] | None = Field(
        default=None, description="detX_num - num_pl_spikes: 0 where SETOL's condition holds"
    )


class Cause(Model):
    """Why there is a trap. Row and column are those of the stored matrix or expert slice, from 0."""

    kind: CauseKind
    row: Count | None = None
    column: Count | None = None
    value: float | None = None
    sigmas: float | None = Field(default=None, description="distance from the mean in standard deviations of the bulk")
    activity: Activity | None = Field(default=None, description="what `llmtrap ablate` calls the entry")


class Trap(Model):
    """One eigenvalue of the shuffled matrix beyond the edge, in the first shuffle, or as predicted."""

    eigenvalue: float
    z: float
    strength: float
    cause: Cause
    p_value: float | None = Field(
        default=None, description="chance of an eigenvalue this large in one shuffle, if entries were light-tailed"
    )


class Shuffled(Model):
    """The whole shuffled spectrum of the first shuffle, against the Marchenko–Pastur law."""

    ks: float
    p_value: float
    histogram: Histogram


class Traps(Model):
    """Correlation Traps of one matrix: counts are medians over `shuffles`, `low` and `high` the extremes.

    A matrix counts as trapped where every shuffle shows a centred trap (`centred_low` > 0); where only some do
    (`centred_low` = 0 < `centred_high`) the shuffles leave it undecided.
    A predicted matrix has the traps that every shuffle would show; none was made.
    """

    count: Count
    centred: Count = Field(description="traps of cause entry or heavy_tail")
    mean_shift: Count
    low: Count
    high: Count
    centred_low: Count | None = Field(default=None, description="null in reports of older versions")
    centred_high: Count | None = None
    reliable: bool
    kurtosis: float | None
    max_sigmas: float | None
    method: Method
    rule: str
    entry_ratio: float | None
    mean_ratio: float | None
    mean: float | None
    bulk_variance: float | None
    edge: float | None = Field(description="eigenvalue beyond which the rule calls a trap")
    edge_z: float | None = Field(default=None, description="where the edge stands, in Tracy–Widom units z")
    top_z: float | None = Field(
        default=None, description="z of the first shuffle's greatest eigenvalue, or of the greatest predicted one"
    )
    top_z_low: float | None = None
    top_z_high: float | None = None
    shuffles: Shuffles = 0
    found: Items[Trap] = ()
    shuffled: Shuffled | None = None


class NonFinite(Model):
    """NaN or infinite entries: a finding; nothing else is computed of such a matrix."""

    nan: Count
    inf: Count
    row: Count
    column: Count


class Measured(Model):
    """All numbers of one matrix. With `non_finite` set, nothing else is."""

    alpha: Alpha | None
    spectrum: Spectrum | None
    weightwatcher: WeightWatcherColumns | None = None
    traps: Traps | None
    non_finite: NonFinite | None
    all_zero: bool = Field(default=False, description="every entry is zero: the layer adds nothing")
