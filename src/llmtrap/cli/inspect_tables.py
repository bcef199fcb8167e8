"""What `llmtrap inspect` shows: the plan of an audit as tables, or as JSON."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmtrap.audit import Plan, RunOptions
from llmtrap.audit.estimate import expected_seconds
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.cli.console import output
from llmtrap.cli.introduction import encodings, where_from
from llmtrap.report.formatting import duration, plural, printable, size

_NUMBERS = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True)
class Listed:
    """One matrix as `--json` lists it."""

    id: str
    tensor: str
    part: str
    layer: int | None
    role: str
    expert: int | None
    shape: tuple[int, int]
    encoding: str

    @classmethod
    def of(cls, m: WeightMatrix) -> Listed:
        """What the headers say of it."""
        return cls(m.id, m.tensor, m.part, m.layer, m.role, m.expert, m.shape, m.encoding)


def _console(*, every: bool) -> Console:
    """Where it is shown; a list that goes to a file or another program keeps each matrix on its line."""
    console = output()
    if every and not console.is_terminal:
        console.width = 10_000
    return console


def document(checkpoint: Checkpoint, plan: Plan) -> dict[str, object]:
    """The same as JSON types."""
    tables = {skipped.tensor for skipped in plan.skipped if skipped.kind == "table"}
    return {
        "target": checkpoint.catalogue.identity.shown_label,
        "family": checkpoint.family,
        "bytes": plan.bytes,
        "matrices": [asdict(Listed.of(task.matrix)) for task in plan.tasks],
        "tables": [asdict(Listed.of(matrix)) for matrix in checkpoint.matrices if matrix.tensor in tables],
        "skipped": [
            {"tensor": skipped.tensor, "reason": skipped.reason, "kind": skipped.kind} for skipped in plan.skipped
        ],
        "unknown": list(checkpoint.unknown),
        "notes": list(checkpoint.notes),
    }


def show(checkpoint: Checkpoint, plan: Plan, *, every: bool) -> None:
    """What would be audited, once a kind or (`every`) by name, and what not and why."""
    console = _console(every=every)
    identity = checkpoint.catalogue.identity
    workers = RunOptions().workers
    facts = Table.grid(padding=(0, 2))
    facts.add_row("target", Text(printable(identity.shown_label)))
    if checkpoint.catalogue.base is not None:
        facts.add_row("adapter of", Text(printable(checkpoint.catalogue.base.shown_label)))
    facts.add_row("family", Text(checkpoint.family))
    facts.add_row("encodings", Text(encodings(task.matrix for task in plan.tasks)))
    facts.add_row("files", plural(len(checkpoint.catalogue.files), "file") + where_from(checkpoint))
    facts.add_row("matrices", f"{len(plan.tasks):,}, {size(plan.bytes)} to read")
    tables = [skipped for skipped in plan.skipped if skipped.kind == "table"]
    if tables:
        numbers = plural(sum(table.parameters for table in tables), "number")
        facts.add_row("tables", f"{len(tables):,} with {numbers}: named and counted, not measured")
    expected = expected_seconds(plan.core_seconds, workers)
    pace = "at this machine's present pace"
    facts.add_row("time", f"about {duration(expected)} with {plural(workers, 'worker')}, {pace}")
    facts.add_row("skipped", plural(len(plan.skipped) - len(tables), "tensor"))
    for note in checkpoint.notes:
        facts.add_row("split", Text(note))
    console.print(facts)
    console.print()
    console.print(_every_matrix(plan) if every else _by_kind(plan))
    if checkpoint.unknown:
        console.print()
        _show_unknown(checkpoint.unknown, console)
    if plan.skipped:
        console.print()
        console.print(_every_skip(plan) if every else _by_reason(plan))


def _by_kind(plan: Plan) -> Table:
    """Each part of the model, and in it each role with its shape."""
    kinds = Counter((t.matrix.part, t.matrix.role, t.matrix.shape, t.matrix.encoding) for t in plan.tasks)
    sizes = Counter[str]()
    for (part, _, shape, _), count in kinds.items():
        sizes[part] += shape[0] * shape[1] * count
    table = _table("part", "matrices", "rows × columns", "encoding", "count")
    largest = list(dict.fromkeys(part for part, _ in sizes.most_common()))
    shown = ""
    for (part, role, shape, encoding), count in sorted(
        kinds.items(), key=lambda item: (largest.index(item[0][0]), -item[1], item[0])
    ):
        rows = f"{shape[0]} × {shape[1]}"
        table.add_row("" if part == shown else part, Text(printable(role, 40)), rows, encoding, str(count))
        shown = part
    return table


def _every_matrix(plan: Plan) -> Table:
    table = _table("matrix", "tensor", "rows × columns", "encoding")
    for task in plan.tasks:
        m = task.matrix
        table.add_row(Text(printable(m.id)), Text(printable(m.tensor)), f"{m.shape[0]} × {m.shape[1]}", m.encoding)
    return table


def _show_unknown(names: tuple[str, ...], console: Console) -> None:
    """Names whose role is not known, once a kind, as the lines of a family's file that would tell it."""
    kinds = Counter(_NUMBERS.sub("", f".{name}").removeprefix(".") for name in names)
    shown = list(kinds.most_common(20))
    console.print("names not known; in a file for --family, with the role in place of ROLE:")
    console.print("[roles]")
    for name, count in shown:
        end = ".".join(name.split(".")[-2:])
        console.print(Text(f'"{printable(end, 100)}" = "ROLE"  # {plural(count, "module")}'), soft_wrap=True)
    if len(kinds) > len(shown):
        console.print(f"# and {len(kinds) - len(shown)} more kinds")


def _by_reason(plan: Plan) -> Table:
    table = _table("skipped because", "tensors", "for instance")
    reasons: dict[str, list[str]] = {}
    for skipped in plan.skipped:
        reasons.setdefault(skipped.reason, []).append(skipped.tensor)
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        table.add_row(Text(printable(reason)), str(len(names)), Text(printable(names[0], 60)))
    return table


def _every_skip(plan: Plan) -> Table:
    table = _table("skipped", "because")
    for skipped in plan.skipped:
        table.add_row(Text(printable(skipped.tensor)), Text(printable(skipped.reason)))
    return table


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        table.add_column(header, overflow="fold", justify="right" if header in ("count", "tensors") else "left")
    return table
