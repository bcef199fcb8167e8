"""The report document: the contract `llmtrap.report/2` between an audit and everything that shows or judges it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmtrap.report.handy import MatrixMethods, ReportMethods

SCHEMA: Final = "llmtrap.report/2"
MOST_SHUFFLES: Final = 10_000

Band = Literal["over", "well", "under", "random"]
Method = Literal["certified", "predicted", "measured", "undecided"]
UTC_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"

Activity = Literal["inert", "weak", "active", "needed", "harmful"]
CauseKind = Literal["mean_shift", "entry", "heavy_tail"]
LeftOut = Literal["unreadable", "table", "one_dimensional", "buffer", "on_request", "file_not_read", "unmeasured"]
ReportLevel = Literal["usual", "unusual", "broken", "partly_measured", "nothing_measured"]
FindingKind = Literal[
    "broken_values",
    "zeros",
    "like_noise",
    "rare_entry",
    "rare_kurtosis",
    "rare_norm",
    "trapped_share",
    "outlier_channel",
    "large_entries",
    "heavy_tail",
    "heavy_spectrum",
    "stands_out",
]
Weight = Literal["broken", "unusual", "usual"]

# Documents come from others too: a number that no machine holds and a list of millions of wrong items are refused at
# once, with the first of them named.
T = TypeVar("T")
Count = Annotated[int, Field(ge=0, lt=2**63)]
Shuffles = Annotated[int, Field(ge=0, le=MOST_SHUFFLES)]
Items = Annotated[tuple[T, ...], Field(fail_fast=True)]


class Model(BaseModel):
    """Base of every part: immutable. Unknown keys are refused, and so are NaN and infinity: JSON cannot hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __dir__(self) -> list[str]:
        """The fields, and what this package's classes can do: nothing of Pydantic's own."""
        ours = (kind for kind in type(self).__mro__ if kind.__module__.startswith("llmtrap."))
        methods = {name for kind in ours for name in vars(kind) if not name.startswith(("_", "model_"))}
        return sorted({*type(self).model_fields, *methods})


class Histogram(Model):
    """Counts of eigenvalues in logarithmic bins; `edges` has one more element than `counts`."""

    edges: Items[float]
    counts: Items[Count]

    @model_validator(mode="after")
    def _edges_fit_counts(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1 or not self.counts:
            raise ValueError(f"{len(self.counts)} counts need one edge more, not {len(self.edges)}")
        if any(left >= right for left, right in pairwise(self.edges)):
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


class Matrix(MatrixMethods, Model):
    """One weight matrix and everything measured of it."""

    id: str
    tensor: str
    part: str = Field(default="text", description="the part of the model, such as text or vision")
    layer: Count | None
    role: str
    expert: Count | None
    shape: tuple[Count, Count]
    encoding: str
    bits: float | None = Field(default=None, description="bits a weight as stored, scales included; null where unknown")
    rounding: str | None = Field(default=None, description="what rounding to few bits does to the numbers below")
    aliases: Items[str] = ()
    alpha: Alpha | None
    spectrum: Spectrum | None
    weightwatcher: WeightWatcherColumns | None = None
    traps: Traps | None
    non_finite: NonFinite | None
    all_zero: bool = Field(default=False, description="every entry is zero: the layer adds nothing")
    seconds: float


class Tool(Model):
    """What wrote the report."""

    name: str
    version: str


class File(Model):
    """One file of the target."""

    path: str
    bytes: Count
    digest: str | None


class Caution(Model):
    """What the storage did to the weights beside rounding them, and what that means for the numbers."""

    kind: Literal["rotated", "column_scaled", "rows_reordered"]
    text: str


class Target(Model):
    """What was audited."""

    name: str
    kind: str
    revision: str | None
    family: str
    files: Items[File]
    encodings: Items[str]
    base: str | None = Field(default=None, description="the model that an adapter was put on, as NAME@COMMIT")
    cautions: tuple[Caution, ...] = Field(default=(), description="to be known before the numbers are read")


class Settings(Model):
    """Every setting that changes a number of the report."""

    traps: Literal["auto", "measure", "certify"]
    trap_rule: Literal["tracy-widom", "weightwatcher"]
    alpha: bool
    include: Items[str]
    exclude: Items[str]
    split_fused: bool
    shuffles: Shuffles
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    backend: str


class Amount(Model):
    """So many tensors (or matrices, or files) with so many parameters in so many bytes."""

    count: Count = 0
    parameters: Count = 0
    bytes: Count = 0


class SkippedTensor(Model):
    """A tensor, a matrix or a whole file (`FILE (file)`) that is not audited, and why.

    `kind` is its class in `Coverage.counts`; a file that was not read has bytes and no known number of parameters.
    """

    tensor: str
    reason: str
    kind: LeftOut = "unmeasured"
    parameters: Count = 0
    bytes: Count = 0


class FailedMatrix(Model):
    """A matrix that could not be measured, and why."""

    id: str
    tensor: str
    error: str
    parameters: Count = 0
    bytes: Count = 0


class CoverageCounts(Model):
    """The parameters of a checkpoint by what became of them; each is in one class."""

    measured: Amount = Field(description="matrices measured")
    unreadable: Amount = Field(description="matrices whose measurement failed, tensors of a format that is not read")
    table: Amount = Field(
        default=Amount(), description="tables of positions, learned tokens or decays: no maps from one space to another"
    )
    one_dimensional: Amount = Field(description="biases, norms, scalars and stacks of such")
    buffer: Amount = Field(description="index tables, masks and the like: no parameters")
    on_request: Amount = Field(description="left out by --include or --exclude")
    file_not_read: Amount = Field(description="files with weights that were not looked at; parameters unknown, so 0")
    unmeasured: Amount = Field(description="left out for another reason: weights of which nothing is known")


class Coverage(Model):
    """Every tensor of the checkpoint is in `matrices`, `skipped` or `failed`."""

    planned: Count
    audited: Count
    counts: CoverageCounts | None = Field(default=None, description="null in a report of an older schema")
    share: float | None = Field(
        default=None, description="measured parameters among all but those of tables; buffers are none"
    )
    skipped: Items[SkippedTensor]
    failed: Items[FailedMatrix]


class TensorFinding(Model):
    """NaN, infinite or only zero values in a tensor that is no weight matrix, such as a norm or a bias."""

    tensor: str
    shape: Items[Count]
    encoding: str
    nan: Count
    inf: Count
    first: Items[Count] | None = Field(description="index of the first such entry, from 0; null where all are zero")
    all_zero: bool


class Remembered(Model):
    """Matrices that an earlier run measured and the journal kept; times are UTC, ISO 8601."""

    matrices: Count
    oldest: str = Field(pattern=UTC_TIME)
    newest: str = Field(pattern=UTC_TIME)


class Rarity(Model):
    """Of so many published models, how many have as much; models that share weights count as one."""

    alike: Count
    models: Count


class Channel(Model):
    """One row or column, from 0, in which large entries lie in several layers."""

    axis: Literal["row", "column"]
    index: Count
    layers: Items[Count]


class Finding(Model):
    """Matrices that have one thing in common, and how rare that is."""

    kind: FindingKind
    weight: Weight = Field(description="what it makes of the report's level")
    text: str
    count: Count = Field(description="matrices (or other tensors) it is about")
    matrices: Items[str] = Field(description="ids of the first of them, the gravest first")
    rarity: Rarity | None = Field(default=None, description="null where no reference has the role")
    channel: Channel | None = None
    share: float | None = Field(
        default=None, description="effect size: the greatest share of ‖W‖² that one entry holds in its matrix"
    )


class Run(Model):
    """When a report was made, and what it took to measure.

    `measuring_seconds` is the time the matrices took one after the other, in this run, in earlier ones whose results
    the journal kept, and in every part of a merged audit; `Summary.seconds` is the time that this run took.
    """

    name: str | None = Field(default=None, description="what whoever asked for the report calls the target (--name)")
    finished: str = Field(pattern=UTC_TIME, description="UTC, ISO 8601")
    measuring_seconds: float


class AlphaSummary(Model):
    """α over the reliable fits, and how many matrices fall in each band."""

    mean: float | None
    median: float | None
    over: Count
    well: Count
    under: Count
    random: Count = 0
    unreliable: Count


class ReferenceUsed(Model):
    """The published models that a report was held against."""

    name: str
    models: Count
    lineages: Count = Field(description="models that share no weights with each other")


class Summary(Model):
    """The head of the report."""

    verdict: str
    level: ReportLevel
    reference: ReferenceUsed | None = Field(default=None, description="null: rarity is not known")
    matrices: Count
    with_traps: Count = Field(description="matrices in which every shuffle shows a centred trap, counts reliable")
    uncertain: Count = Field(default=0, description="matrices in which some shuffles show a centred trap and some none")
    traps: Count = Field(description="centred traps over those matrices")
    mean_shifts: Count
    certified: Count
    predicted: Count = Field(default=0, description="matrices whose traps every shuffle must show; none was made")
    measured: Count
    undecided: Count
    expected_false_traps: float | None = Field(
        description="by chance, of the matrices certified and measured; null where the rule gives no number"
    )
    alpha: AlphaSummary
    non_finite: Count = Field(description="matrices and other tensors with NaN or infinite values")
    all_zero: Count = Field(default=0, description="weight matrices and norms of zeros alone")
    remembered: Remembered | None = Field(default=None, description="what came from the journal")
    seconds: float
    peak_rss_bytes: Count


class Report(ReportMethods, Model):
    """One audit, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: Literal["llmtrap.report/2"] = Field(default=SCHEMA, alias="schema")
    tool: Tool
    target: Target
    settings: Settings
    run: Run | None = Field(default=None, description="null in reports of older versions")
    coverage: Coverage
    summary: Summary
    findings: Items[Finding] = Field(default=(), description="the gravest first")
    matrices: Items[Matrix]
    tensors: Items[TensorFinding] = Field(default=(), description="findings in tensors that are no matrix")

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)
