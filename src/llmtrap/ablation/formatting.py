"""An ablation in words: the verdict, and rows for the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmtrap.ablation.document import AblationReport, CandidateResult, Value

MEANINGS = {
    "needed": "the model predicts text worse without it: leave it alone",
    "harmful": "the model predicts text better without it",
    "active": "its removal changes predictions; whether for better or worse, only a text or a base can tell",
    "weak": "its removal changes predictions a little",
    "inert": "its removal changes nothing beyond what ordinary entries do",
}
HEADERS = ("matrix", "what", "why tried", "J", "KL on text", "ΔNLL on text", "control", "label")


def verdict(results: Sequence[CandidateResult], *, with_text: bool, causal: bool) -> str:
    """One or two sentences: how many candidates matter, and what could not be told."""
    if not results:
        return "Nothing to ablate: no trap, no large entry and no massive activation."
    if not causal:
        return (
            f"{_many(len(results), 'candidate')} ablated in an encoder: changes of its embeddings are given, "
            "and no label, since it predicts nothing."
        )
    parts = [
        f"{len(found)} {label}"
        for label in ("needed", "harmful", "active", "weak", "inert")
        if (found := [r for r in results if r.label == label])
    ]
    if unjudged := sum(r.label is None for r in results):
        parts.append(f"{unjudged} not judged")
    traps = [r for r in results if "trap" in r.origins]
    inert = sum(r.label == "inert" for r in traps)
    sentences = [f"Of {_many(len(results), 'candidate')}: {', '.join(parts)}."]
    if traps:
        sentences.append(f"{inert} of {_many(len(traps), 'trap')} {'is' if inert == 1 else 'are'} inert.")
    if not with_text:
        sentences.append("Without a tokenizer nothing could be called needed or harmful.")
    return " ".join(sentences)


def place(result: CandidateResult) -> str:
    """What was changed, by its place alone."""
    return f"[{result.row}, {result.column}]" if result.kind == "entry" else what(result)


def what(result: CandidateResult) -> str:
    """What was changed, in a few words."""
    if result.kind == "entry":
        far = f", {result.sigmas:.0f} s" if result.sigmas is not None else ""
        limits = f" ({result.limits:.2f} of the limit)" if result.limits is not None else ""
        return f"entry [{result.row}, {result.column}]{far}{limits}"
    return {
        "mean_shift": "the mean",
        "far_entries": "all far entries",
        "top_component": "the top component",
    }[result.kind]


def cells(result: CandidateResult) -> tuple[str, ...]:
    """One row, a cell for each of HEADERS."""
    effect = result.j or result.embedding_change
    return (
        result.matrix,
        what(result),
        ", ".join(origin.replace("_", " ") for origin in result.origins),
        _number(effect),
        _number(result.kl),
        _signed(result.nll_change),
        "–" if result.control_floor is None else f"{result.control_floor:.1e}",
        result.label or f"not judged: {result.reason}",
    )


def narrow_cells(result: CandidateResult, *, with_text: bool) -> tuple[str, ...]:
    """The same in few columns: matrix, place, effect (on text, where there is one) and label."""
    effect = _signed(result.nll_change) if with_text else _number(result.j or result.embedding_change)
    return result.matrix, place(result), effect, result.label or "not judged"


def notes(report: AblationReport) -> Iterable[str]:
    """What a reader must know beside the table."""
    settings = report.settings
    yield f"Probe: {settings.probe_tokens} tokens, {_PROBES[settings.probe]}."
    if report.nll is not None:
        source = "the bundled passage" if settings.text == "bundled" else settings.text
        yield f"Text: {settings.text_tokens} tokens of {source}, {report.nll.value:.3f} nats a token."
    if report.settings.paper:
        yield (
            "The paper's replacement stands beside its noise alone: where the two are alike, the noise is what acts. "
            "Its column on uniform random tokens is unreliable (docs/ablation.md)."
        )
    if report.left_out:
        shown = ", ".join(item.name for item in report.left_out[:3])
        more = f" and {len(report.left_out) - 3} more" if len(report.left_out) > 3 else ""
        yield f"Left out: {shown}{more} ({report.left_out[0].reason})."


_PROBES = {
    "resampled": "drawn from the model's own predictions",
    "text": "of the text",
    "random": "uniform random, since there is no tokenizer: unreliable",
}


def _number(value: Value | None) -> str:
    if value is None:
        return "–"
    return f"{value.value:.1e}" + ("" if value.se is None else f" ± {value.se:.0e}")


def _signed(value: Value | None) -> str:
    if value is None:
        return "–"
    return f"{value.value:+.4f}" + ("" if value.se is None else f" ± {value.se:.4f}")


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
