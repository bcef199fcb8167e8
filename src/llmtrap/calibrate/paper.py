"""The papers' own numbers for these tasks, to stand beside ours.

arXiv 2602.02859 (Prakash & Martin), tables 1, 2 and 4, and appendices H and I; arXiv 2506.04434, table 2, which counts
the traps of the same run otherwise. Theirs are after 10⁵, 10⁶ and 10⁷ steps in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmtrap.calibrate.document import PaperRow, PhaseRow
from llmtrap.calibrate.phases import PHASES


@dataclass(frozen=True)
class _Published:
    source: str
    quantity: str
    measure: str
    values: tuple[str, str, str]
    arm: str = "wd0"


_IMAGES = (
    _Published("2602.02859, figure 1 (read off)", "test accuracy", "test accuracy", ("≈ 0.4", "≈ 0.85", "≈ 0.5")),
    _Published("2602.02859, table 1", "α of FC1", "fc1: α", ("5.0 ± 0.7", "3.6 ± 0.5", "0.9 ± 0.4")),
    _Published("2602.02859, table 1", "α of FC2", "fc2: α", ("2.9 ± 0.7", "2.3 ± 0.2", "1.3 ± 0.3")),
    _Published("2602.02859, table 1", "α, mean of both", "mean α", ("4.0 ± 0.6", "2.9 ± 0.2", "1.1 ± 0.3")),
    _Published("2602.02859, table 2", "traps of FC1", "fc1: traps", ("0", "0", "7.5 ± 5.6")),
    _Published("2602.02859, table 2", "traps of FC2", "fc2: traps", ("0", "0", "1 ± 0")),
    _Published("2506.04434, table 2", "traps of FC1", "fc1: traps", ("0", "1 ± 0", "-")),
    _Published("2506.04434, table 2", "traps of FC2", "fc2: traps", ("0", "1 ± 0", "-")),
    _Published("2602.02859, table 2", "traps of FC1, weight decay 0.01", "fc1: traps", ("0", "0", "2.0"), "wd0.01"),
    _Published("2602.02859, table 2", "traps of FC2, weight decay 0.01", "fc2: traps", ("0", "0", "1.0"), "wd0.01"),
    _Published(
        "2602.02859, table 4",
        "KS distance of shuffled FC1",
        "fc1: KS distance from Marchenko-Pastur",
        ("0.0120", "0.0212", "0.3044"),
    ),
    _Published("2602.02859, table 4", "its p-value", "fc1: its p-value", ("≈ 1", "≈ 1", "1.9e-5")),
    *(
        _Published("2602.02859, appendix I: initialisation × 4", quantity, measure, values)
        for quantity, measure, values in (
            ("test accuracy", "test accuracy", ("0.493", "0.888", "0.618 ± 0.109")),
            ("train accuracy", "train accuracy", ("0.73", "1.0", "1.0")),
            ("l2 norm", "l2 norm", ("17.5", "16.8", "27.6")),
            ("α of FC1", "fc1: α", ("8.88", "2.59", "1.23")),
            ("α of FC2", "fc2: α", ("3.84", "2.77", "1.49")),
            ("traps of FC1", "fc1: traps", ("0", "0", "7")),
            ("traps of FC2", "fc2: traps", ("0", "0", "1.17")),
            ("traps of the head", "fc3: traps", ("0", "0", "5.5")),
        )
    ),
)

_SUMS = (
    _Published(
        "2602.02859, appendix H", "test accuracy", "test accuracy", ("0.40 ± 0.28", "0.97 ± 0.02", "0.68 ± 0.11"), "any"
    ),
    _Published("2602.02859, appendix H", "mean α", "mean α", ("4.10 ± 0.83", "2.02 ± 0.44", "3.89 ± 0.68"), "any"),
    *(
        _Published("2602.02859, appendix H", f"traps of {name}", f"{name}: traps", ("0", "0", count), "any")
        for name, count in (
            ("embed", "7"),
            ("attn.q", "3"),
            ("attn.k", "5"),
            ("attn.v", "3"),
            ("attn.out", "4"),
            ("fc1", "5"),
            ("fc2", "7"),
            ("unembed", "5"),
        )
    ),
)


def beside_the_paper(task: str, rows: Sequence[PhaseRow]) -> tuple[PaperRow, ...]:
    """Each published number beside the mean ± deviation of the arm that it belongs to."""
    here = {(row.arm, row.measure): row.cells for row in rows}
    arms = list(dict.fromkeys(row.arm for row in rows))
    compared: list[PaperRow] = []
    for item in _SUMS if task == "modular-addition" else _IMAGES:
        arm = arms[0] if item.arm == "any" and arms else item.arm
        cells = here.get((arm, item.measure))
        if cells is None:
            continue
        for phase, paper in zip(PHASES, item.values, strict=True):
            compared.append(
                PaperRow(
                    source=item.source, quantity=item.quantity, phase=phase, paper=paper, here=_words(cells.get(phase))
                )
            )
    return tuple(compared)


def _words(cell: tuple[float, float, int] | None) -> str:
    if cell is None:
        return "not reached"
    mean, spread, runs = cell
    return f"{mean:.3g} ± {spread:.2g} ({runs} runs)" if runs > 1 else f"{mean:.3g} (1 run)"
