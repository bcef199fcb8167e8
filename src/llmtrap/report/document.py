"""The report document: the contract `llmtrap.report/2` between an audit and everything that shows or judges it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from llmtrap.models import Count, Items, Model
from llmtrap.report.handy import MatrixMethods, ReportMethods
from llmtrap.spectra.measured import Measured, Shuffles

SCHEMA: Final = "llmtrap.report/2"

UTC_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"

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


class Named(Model):
    """Which matrix of a checkpoint it is, and how it is stored."""

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


class Matrix(MatrixMethods, Measured, Named):
    """One weight matrix and everything measured of it."""

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
