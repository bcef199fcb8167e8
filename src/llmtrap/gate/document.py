"""The gate's own document, `llmtrap.gate/1`: the judgement that every output renders and a script can read."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from llmtrap.report.document import Model, Tool

SCHEMA: Final = "llmtrap.gate/1"

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

    schema_: Literal["llmtrap.gate/1"] = Field(default=SCHEMA, alias="schema")
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
    updates: tuple[Update, ...]
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

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)
