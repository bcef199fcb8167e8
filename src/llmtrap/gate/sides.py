"""The two sides of an adapter's gate: the adapter on the base that it names, and what that is judged against."""

from __future__ import annotations

from dataclasses import dataclass

from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.adapted import adapt
from llmtrap.errors import LlmtrapError
from llmtrap.gate.targets import OpenAdapter, adapter_base, names_it
from llmtrap.report.formatting import printable


@dataclass(frozen=True)
class AdaptedSides:
    """Base + ΔW, and the base that it is judged against; both None where the adapter's base is not at hand.

    `unknown_base` says why it cannot be told whether the baseline is the base that the adapter was trained on.
    """

    target: Checkpoint | None
    base: Checkpoint | None
    notes: tuple[str, ...] = ()
    unknown_base: str | None = None


def adapted_sides(opened: OpenAdapter, baseline: Checkpoint | None, *, alone: bool = False) -> AdaptedSides:
    """Find the base of an adapter, and put the adapter on it.

    Without a baseline the adapter is judged against its own base. A baseline other than that is what the adapter on
    its own base is judged against: that is the model that will run. `alone`: without a baseline nothing is looked for.
    """
    adapter = opened.adapter
    if baseline is not None and names_it(adapter, baseline):
        return AdaptedSides(adapt(baseline, adapter, opened.source), baseline)
    if baseline is None and alone:
        return AdaptedSides(None, None)
    named = printable(adapter.base_name or "", 200)
    try:
        own = adapter_base(opened)
    except LlmtrapError as error:
        if baseline is None:
            return AdaptedSides(None, None, (f"judged without its base: {error.message}",))
        why = (
            f"the adapter names '{named}' as its base, which cannot be opened ({error.problem}): whether the baseline "
            "is that model cannot be told"
        )
        return AdaptedSides(adapt(baseline, adapter, opened.source), baseline, unknown_base=why)
    target = adapt(own, adapter, opened.source)
    if baseline is None:
        return AdaptedSides(target, own, (f"judged against the base that the adapter names: {named}",))
    note = f"judged is the adapter on its own base, {named}, against the baseline {_name(baseline)}"
    return AdaptedSides(target, baseline, (note,))


def _name(checkpoint: Checkpoint) -> str:
    return printable(checkpoint.catalogue.identity.shown_label, 200)
