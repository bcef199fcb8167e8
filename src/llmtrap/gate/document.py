"""The gate's own document, `llmtrap.gate/2`: the judgement that every output renders and a script can read."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from llmtrap.models import Model
from llmtrap.report.document import Tool

SCHEMA: Final = "llmtrap.gate/2"

Level = Literal["error", "warn", "off"]
Outcome = Literal["passed", "violated", "incomplete"]


class Side(Model):
    """What was judged, or what it was judged against."""

    name: str
    kind: str
    revision: str | None
    family: str


class Counts(Model):
    """How the matrices of the target were treated; the first six add up to `matrices`."""

    matrices: int
    unchanged: int = Field(description="bytes equal the base's: not measured again, and nothing new can be in them")
    measured: int = Field(description="judged against the base on numbers of both")
    added: int = Field(description="not in the base")
    reshaped: int = Field(description="of another shape than in the base")
    not_compared: int = Field(description="measured here, but not in the base")
    failed: int = Field(description="not measured here")
    missing: int = Field(description="in the base only")
    too_small: int = Field(description="measured, but too small for a count of traps to be reliable")
    without_alpha: int = Field(description="measured, but without a reliable fit of α on both sides")


class Chance(Model):
    """Error rates over the whole audit, and the false alarms to expect of it."""

    false_alarms: float = Field(description="the most false alarms to expect that the policy allows")
    trap_tests: int = Field(description="matrices judged for traps, but for predicted ones: those are certain")
    trap_z: float = Field(description="a new cause must stand at least here, in Tracy-Widom units")
    alpha_tests: int
    alpha_sigmas: float = Field(description="a change of α must be more than this many combined standard errors")
    expected: float = Field(description="false alarms to expect by chance of an unharmed fine-tune, at most")


class Update(Model):
    """ΔW = W − W_base of one changed matrix. `relative` is ‖ΔW‖_F / ‖W_base‖_F; null where W_base is not at hand."""

    id: str
    spectral_norm: float
    frobenius_norm: float
    stable_rank: float
    relative: float | None
    rank: int | None = Field(default=None, description="rank of a LoRA update")
    row: int | None = Field(default=None, description="of the entry that changed most")
    column: int | None = None
    was: float | None = None
    now: float | None = None
    changed_rows: int | None = Field(default=None, description="rows with any changed entry")
    emptied_rows: int = Field(default=0, description="rows whose norm fell under a tenth of the base's")
    emptied_columns: int = 0
    first_emptied_row: int | None = None
    first_emptied_column: int | None = None


class OutsideTensor(Model):
    """A tensor that is no weight matrix (a norm, a bias, a buffer) and is broken, or not the base's byte for byte.

    `change`: same, changed, added, missing, reshaped, or unreadable. Sizes are null where they say nothing: for
    integers, for other shapes, and where the base's values are all zero.
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    change: str
    nan: int = 0
    inf: int = 0
    scale: float | None = Field(default=None, description="its root mean square over the base's")
    relative: float | None = Field(default=None, description="norm of the change over the norm of the base's")
    error: str | None = None


class NotJudged(Model):
    """A rule that could not look at some matrices, which therefore have not passed it.

    `blocking`: at level error there is no verdict then. Matrices of which nothing is known are LT006's to judge, and do
    not block here.
    """

    rule: str
    name: str
    level: Level
    reason: str
    matrices: int = Field(description="how many; 0 for the checkpoint as a whole")
    ids: tuple[str, ...] = Field(description="the first of them")
    kinds: tuple[str, ...] = Field(description="module kinds, or `checkpoint`")
    blocking: bool = True
    ignored: str | None = Field(default=None, description="the reason of the ignore that covers it")

    @property
    def blocks(self) -> bool:
        """Whether there is no verdict because of it."""
        return self.blocking and self.level == "error" and self.ignored is None


class Finding(Model):
    """One rule's objection to one matrix, or to the checkpoint as a whole (`id` null)."""

    rule: str
    name: str
    level: Level
    id: str | None
    tensor: str | None
    kind: str = Field(description="module kind, or `checkpoint`")
    message: str
    now: float | None = None
    base: float | None = None
    severity: float = Field(description="orders the findings of one level, worst first")
    fingerprint: str = Field(description="the same for the same objection in every run")
    ignored: str | None = Field(default=None, description="the reason of the ignore that covers it")


class RuleApplied(Model):
    """One rule as the policy sets it, and the module kinds it looked at."""

    id: str
    name: str
    title: str
    level: Level
    kinds: tuple[str, ...]
    line: int = Field(description="where the policy file sets it, from 1")


class PolicyUsed(Model):
    """Where the policy came from; null for the built-in one."""

    path: str | None


class Judgement(Model):
    """One gate, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: Literal["llmtrap.gate/2"] = Field(default=SCHEMA, alias="schema")
    tool: Tool
    outcome: Outcome
    exit_code: int
    headline: str
    target: Side
    base: Side | None
    policy: PolicyUsed
    counts: Counts
    chance: Chance
    rules: tuple[RuleApplied, ...]
    findings: tuple[Finding, ...]
    not_judged: tuple[NotJudged, ...] = ()
    updates: tuple[Update, ...]
    outside: tuple[OutsideTensor, ...] = ()
    notes: tuple[str, ...]

    @property
    def errors(self) -> list[Finding]:
        """What makes the gate fail, worst first."""
        return [finding for finding in self.findings if finding.level == "error" and finding.ignored is None]

    @property
    def warnings(self) -> list[Finding]:
        """What is said and changes nothing."""
        return [finding for finding in self.findings if finding.level == "warn" and finding.ignored is None]

    @property
    def ignored(self) -> list[Finding]:
        """What the policy's ignores cover."""
        return [finding for finding in self.findings if finding.ignored is not None]

    @property
    def unjudged(self) -> list[NotJudged]:
        """What leaves no verdict, beside LT006's findings: rules at level error that could not be evaluated."""
        return [item for item in self.not_judged if item.blocks]

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)
