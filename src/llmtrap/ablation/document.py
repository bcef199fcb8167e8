"""The ablation document: the contract `llmtrap.ablation/1`, what each candidate does to the model's outputs."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = "llmtrap.ablation/1"
Label = Literal["inert", "weak", "active", "needed", "harmful"]


class Model(BaseModel):
    """Base of every part: immutable; unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(Model):
    """A mean over sequences with its standard error (null for a single sequence)."""

    value: float
    se: float | None


class ControlResult(Model):
    """What changing as much at another place does: the mean over draws."""

    kind: Literal["elsewhere", "same_row", "same_column"]
    draws: int
    effect: float = Field(description="J of a language model, 1 − cosine of an encoder")


class PaperResult(Model):
    """The component replacement of arXiv 2605.12394 and its noise alone, always side by side."""

    removed: float
    replaced: float
    noise_alone: float
    uniform_random_tokens: float = Field(description="`replaced` on uniform random tokens: unreliable")


class CandidateResult(Model):
    """One candidate: what was changed and what that does."""

    matrix: str
    tensor: str
    kind: Literal["entry", "mean_shift", "far_entries", "top_component"]
    origins: tuple[Literal["trap", "large_entry", "activation", "fisher", "asked_for"], ...]
    row: int | None
    column: int | None
    value: float | None
    mean: float
    sigmas: float | None
    limits: float | None = Field(description="distance from the mean in entry limits s(NM)^(1/4); a trap from 1 on")
    screened: float | None = Field(default=None, description="½ δ² F with --screen fisher, about KL, nats a token")
    j: Value | None = Field(description="Jensen–Shannon divergence on the probe, nats a token")
    kl: Value | None = Field(description="KL(model ‖ ablated) on text, nats a token")
    nll_change: Value | None = Field(description="change of the negative log-likelihood on text, nats a token")
    embedding_change: Value | None = Field(description="1 − cosine of mean-pooled embeddings, for encoders")
    tokens: int | None = Field(description="probe tokens that reached the matrix; fewer than all for an expert")
    controls: tuple[ControlResult, ...]
    control_floor: float | None
    label: Label | None
    reason: str | None = Field(default=None, description="why there is no label")
    paper: PaperResult | None = None


class Target(Model):
    """What was ablated."""

    name: str
    kind: str
    revision: str | None
    family: str


class Tool(Model):
    """What wrote the document."""

    name: str
    version: str


class Settings(Model):
    """How it was done."""

    seed: int
    device: str
    top: int
    matrices: tuple[str, ...]
    probe: str = Field(
        description="`resampled`: own samples by one parallel sweep; or `text` where there is no vocabulary"
    )
    probe_tokens: int
    text: str | None = Field(description="`bundled`, or the name of the file; null without a tokenizer")
    text_tokens: int
    paper: bool
    screen: Literal["fisher"] | None = None


class LeftOut(Model):
    """A candidate or matrix that was not ablated, and why."""

    name: str
    reason: str


class AblationReport(Model):
    """One ablation, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: Literal["llmtrap.ablation/1"] = Field(default=SCHEMA, alias="schema")
    tool: Tool
    target: Target
    settings: Settings
    nll: Value | None = Field(description="negative log-likelihood of the model as it is, on text")
    verdict: str
    candidates: tuple[CandidateResult, ...]
    left_out: tuple[LeftOut, ...]
    seconds: float

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)
