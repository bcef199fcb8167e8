"""One ablation: candidates from the weights and one observed pass, then every variant on the probes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from llmtrap.ablation.activations import SpikeObserver, suspects
from llmtrap.ablation.candidates import Candidate, merged, weight_candidates
from llmtrap.ablation.components import paper_changes
from llmtrap.ablation.document import (
    AblationReport,
    CandidateResult,
    ControlResult,
    Label,
    LeftOut,
    PaperResult,
    Settings,
    Target,
    Tool,
    Value,
)
from llmtrap.ablation.effects import Effects, measure_effects
from llmtrap.ablation.formatting import verdict
from llmtrap.ablation.labels import label_of
from llmtrap.ablation.layer_gate import Variant
from llmtrap.ablation.measures import Estimate
from llmtrap.ablation.probes import first_token, random_tokens, resampled, text_probe
from llmtrap.ablation.screening import screen, screened
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.ablation.variants import Control, ControlKind, ablation, controls
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.errors import UnsupportedError
from llmtrap.report.document import Report
from llmtrap.version import __version__

PROBE_SEQUENCES, PROBE_LENGTH = 8, 64
TEXT_SEQUENCES, TEXT_LENGTH = 12, 128
CONTROL_SEQUENCES = 2
"""Of the probe: they tell how little an ordinary entry does, for which the order of magnitude is enough."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class AblationSettings:
    """What to ablate and how to ask.

    Attributes:
        matrices: globs on matrix ids or tensors; their large entries become candidates, and no others.
        top: at most so many candidates; traps come first, then massive activations, then large entries by size.
        text: a UTF-8 file in the place of the bundled passage.
        paper: replace the component as arXiv 2605.12394 does too, with its noise alone beside it.
        device: where the layers run.
        screen: "fisher" scores every entry of every layer in one backward pass; the highest become candidates.
        seed: of probes and controls.
    """

    matrices: tuple[str, ...] = ()
    top: int = 32
    text: Path | None = None
    paper: bool = False
    device: str = "cpu"
    seed: int = 0
    screen: Literal["fisher"] | None = None


def ablate(
    checkpoint: Checkpoint,
    report: Report,
    settings: AblationSettings | None = None,
    progress: Progress | None = None,
) -> AblationReport:
    """Take each candidate out of a model, one at a time, and measure what that does to its outputs.

    Args:
        checkpoint: the model, opened without `split_fused`.
        report: an audit of it: its traps are candidates.
        settings: which candidates, and how they are tried.
        progress: told in words what is being done.

    Raises:
        MissingExtraError: torch, transformers or accelerate is not installed.
        UnsupportedError: the model cannot be built without the repository's own code, or run layer by layer.
        TargetError: the text is too short or cannot be read.
    """
    return _Ablation(checkpoint, report, settings or AblationSettings(), progress or (lambda _: None)).result()


class _Ablation:
    """The steps of one ablation and what they share."""

    def __init__(self, checkpoint: Checkpoint, report: Report, settings: AblationSettings, progress: Progress):
        self.checkpoint, self.report, self.settings, self.progress = checkpoint, report, settings, progress
        self.model = StreamedModel(checkpoint, settings.device)
        self.matrices = {m.id: m for m in checkpoint.matrices}
        self.observer = SpikeObserver(self.model)
        self.measure = partial(measure_effects, self.model)

    def result(self) -> AblationReport:
        """The document."""
        begun = time.monotonic()
        settings, model = self.settings, self.model
        first = first_token(self.checkpoint)
        # 1. The probe: random tokens, and from a language model one sweep towards its own samples.
        random = random_tokens(model, PROBE_SEQUENCES, PROBE_LENGTH, first, settings.seed)
        self.progress("one pass over the model for the probe and for massive activations")
        with model.run(random, observer=self.observer) as outcome:
            probe = random
            if model.causal:
                probe = resampled(lambda k: outcome.logits(None, slice(k, k + 1)), random, settings.seed)
        text = text_probe(self.checkpoint, settings.text, TEXT_SEQUENCES, TEXT_LENGTH, first)
        if not model.causal and text is not None:
            probe = text.tokens
        # 2. Candidates.
        candidates, left_out = self._candidates(probe)
        # 3. Variants on the probe: each candidate and its controls.
        self.progress(f"{len(candidates)} candidates and their controls on {probe.numel()} tokens of the probe")
        variants = [Variant(c.name, {c.place: ablation(c)}, model.layer_of(c.place.tensor)) for c in candidates]
        guarded = [(c, k, control) for c in candidates for k, control in enumerate(self._controls(c))]
        beside = [
            Variant(f"{c.name} control {k}", {c.place: control.change}, model.layer_of(c.place.tensor))
            for c, k, control in guarded
        ]
        self.observer.counts.clear()
        on_probe, _ = self.measure(probe, variants, observer=self.observer)
        of_controls, _ = self.measure(probe[:CONTROL_SEQUENCES], beside)
        # 4. The candidates alone on text.
        on_text: dict[str, Effects] = {}
        nll = None
        if model.causal and text is not None:
            self.progress(f"the candidates on {text.tokens.numel()} tokens of text")
            on_text, base_nll = self.measure(text.tokens, variants, text=True)
            nll = _value(Estimate.of(torch.tensor(base_nll)))
        paper = self._paper(candidates, probe, random) if settings.paper else {}
        # 5. The document.
        results = []
        for candidate in candidates:
            name = candidate.name
            mine = [(c.kind, of_controls[f"{name} control {k}"]) for owner, k, c in guarded if owner is candidate]
            results.append(self._judged(candidate, on_probe[name], on_text.get(name), mine, paper))
        identity = self.checkpoint.catalogue.identity
        results.sort(key=lambda r: -(r.j or r.embedding_change or _ZERO).value)
        return AblationReport(
            tool=Tool(name="llmtrap", version=__version__),
            target=Target(
                name=identity.shown_name, kind=identity.kind, revision=identity.revision, family=self.checkpoint.family
            ),
            settings=Settings(
                seed=settings.seed, device=settings.device, top=settings.top, matrices=settings.matrices,
                probe="resampled" if model.causal else ("text" if text is not None else "random"),
                probe_tokens=probe.numel(), text=None if text is None else text.source,
                text_tokens=0 if text is None else text.tokens.numel(), paper=settings.paper, screen=settings.screen,
            ),
            nll=nll,
            verdict=verdict(results, with_text=bool(on_text), causal=model.causal),
            candidates=tuple(results),
            left_out=tuple(left_out),
            seconds=time.monotonic() - begun,
        )  # fmt: skip

    def _candidates(self, probe: Tensor) -> tuple[list[Candidate], list[LeftOut]]:
        whole = [m for m in self.checkpoint.matrices if m.rows is None and m.columns is None]
        matrices = [m for m in whole if self.model.used(m.tensor)]
        self.progress("looking for large entries where the model writes into its residual stream")
        found = weight_candidates(matrices, self.report, self.checkpoint.source, self.settings.matrices)
        if not self.settings.matrices:
            found += suspects(self.observer, matrices, self.checkpoint.source)
        if self.settings.screen is not None:
            self.progress("one pass back through the layers scores every entry")
            scored = screen(self.model, probe, self.settings.top, self.settings.seed)
            found += screened(scored, matrices, self.checkpoint.source)
        ranked = merged(found)
        kept, left_out = ranked[: self.settings.top], ranked[self.settings.top :]
        reason = f"only the first {self.settings.top} candidates are ablated (--top)"
        unused = [m for m in self.checkpoint.matrices if not self.model.used(m.tensor)]
        notes = [LeftOut(name=c.name, reason=reason) for c in left_out]
        notes += [LeftOut(name=m.id, reason="no part of the model that config.json describes") for m in unused]
        notes += [
            LeftOut(name=m.id, reason="NaN or infinite entries: restore them first (llmtrap repair)")
            for m in self.report.matrices
            if m.non_finite is not None
        ]
        return kept, notes

    def _controls(self, candidate: Candidate) -> list[Control]:
        return list(controls(candidate, self.matrices[candidate.matrix].shape, self.settings.seed))

    def _judged(
        self,
        candidate: Candidate,
        probe: Effects,
        text: Effects | None,
        beside: Sequence[tuple[ControlKind, Effects]],
        paper: dict[str, PaperResult],
    ) -> CandidateResult:
        kinds: dict[ControlKind, list[float]] = {}
        for kind, measured in beside:
            kinds.setdefault(kind, []).append(sum(values := measured.j or measured.cosine) / len(values))
        floor = max((value for values in kinds.values() for value in values), default=None)
        matrix = self.matrices[candidate.matrix]
        tokens = self._tokens_reaching(matrix)
        change = Estimate.of(torch.tensor(text.nll)) if text is not None else None
        label: Label | None = None
        reason: str | None = "an encoder: no prediction to judge by"
        if self.model.causal:
            label, reason = label_of(Estimate.of(torch.tensor(probe.j)), change, floor, tokens)
        return CandidateResult(
            matrix=candidate.matrix, tensor=candidate.place.tensor, kind=candidate.kind, origins=candidate.origins,
            row=candidate.row, column=candidate.column, value=candidate.value, mean=candidate.mean,
            sigmas=candidate.sigmas, limits=candidate.limits, screened=candidate.screened,
            j=_estimate(probe.j), kl=_estimate(text.kl if text else []), nll_change=_estimate(text.nll if text else []),
            embedding_change=_estimate(probe.cosine), tokens=tokens,
            controls=tuple(
                ControlResult(kind=kind, draws=len(values), effect=sum(values) / len(values))
                for kind, values in kinds.items()
            ),
            control_floor=floor, label=label, reason=reason, paper=paper.get(candidate.name),
        )  # fmt: skip

    def _tokens_reaching(self, matrix: WeightMatrix) -> int | None:
        return None if matrix.expert is None else self.observer.reached(matrix)

    def _paper(self, candidates: Sequence[Candidate], probe: Tensor, random: Tensor) -> dict[str, PaperResult]:
        """The paper's replacement for each trap within a layer, on the probe and on uniform random tokens."""
        if not self.model.causal:
            raise UnsupportedError("--paper compares predictions", remedy="An encoder makes none: leave out --paper")
        self.progress("the paper's component replacement and its noise alone")
        variants: list[Variant] = []
        chosen = [c for c in candidates if "trap" in c.origins and self.model.layer_of(c.place.tensor) is not None]
        for c in chosen:
            matrix = self.matrices[c.matrix]
            changes = paper_changes(c, matrix.read(self.checkpoint.source), self.settings.seed)
            variants += [
                Variant(f"{c.name} {what}", {c.place: change}, self.model.layer_of(c.place.tensor))
                for what, change in changes.items()
            ]
        own, _ = self.measure(probe, variants)
        uniform, _ = self.measure(random, [v for v in variants if v.name.endswith(" replaced")])
        mean = {name: sum(m.j) / len(m.j) for name, m in own.items()}
        return {
            c.name: PaperResult(
                removed=mean[f"{c.name} removed"],
                replaced=mean[f"{c.name} replaced"],
                noise_alone=mean[f"{c.name} noise alone"],
                uniform_random_tokens=sum(u := uniform[f"{c.name} replaced"].j) / len(u),
            )
            for c in chosen
        }


_ZERO = Value(value=0.0, se=None)


def _estimate(values: Sequence[float]) -> Value | None:
    return _value(Estimate.of(torch.tensor(values))) if values else None


def _value(estimate: Estimate) -> Value:
    return Value(value=estimate.value, se=estimate.se)
