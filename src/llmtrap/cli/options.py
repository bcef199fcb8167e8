"""The options that commands share, each defined once; `LLMTRAP_NAME` in the environment stands for `--name`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class TrapModeName(StrEnum):
    """How traps are looked for."""

    AUTO = "auto"
    MEASURE = "measure"
    CERTIFY = "certify"


class TrapRuleName(StrEnum):
    """Which edge an eigenvalue must pass."""

    TRACY_WIDOM = "tracy-widom"
    WEIGHTWATCHER = "weightwatcher"


class BackendName(StrEnum):
    """Which array library computes the spectra."""

    AUTO = "auto"
    NUMPY = "numpy"
    CUPY = "cupy"
    TORCH = "torch"


class EngineName(StrEnum):
    """Where the work runs."""

    LOCAL = "local"
    RAY = "ray"


def _option(name: str, text: str, metavar: str | None = None, *short: str, plain: bool = True) -> Any:
    return typer.Option(
        f"--{name}",
        *short,
        help=text,
        metavar=metavar,
        envvar=f"LLMTRAP_{name.replace('-', '_').upper()}",
        show_envvar=False,
        show_default=plain,
    )


TARGET_HELP = "A folder, one weights file, or a hub repository org/name[/folder][@revision]."
Target = Annotated[str, typer.Argument(help=TARGET_HELP, show_default=False)]
OptionalTarget = Annotated[str | None, typer.Argument(help=TARGET_HELP, show_default=False)]

Demo = Annotated[bool, _option("demo", "Audit a small checkpoint with known traps; TARGET may be grokking.")]

JsonFile = Annotated[
    Path | None, _option("json", "Write the report as JSON; - for standard output.", "FILE", plain=False)
]
HtmlFile = Annotated[Path | None, _option("html", "Write the report as one HTML page.", "FILE", plain=False)]
MarkdownFile = Annotated[Path | None, _option("markdown", "Write the report as Markdown.", "FILE", plain=False)]
ReferenceFile = Annotated[
    str | None,
    _option(
        "reference", "What published models have: a file of 'llmtrap reference build', or none.", "FILE", plain=False
    ),
]
CsvFile = Annotated[Path | None, _option("csv", "Write a line a matrix, for spreadsheets.", "FILE", plain=False)]
CardFile = Annotated[
    Path | None, _option("model-card", "Write metadata and a section for the model's README.", "FILE", plain=False)
]
BadgeFile = Annotated[Path | None, _option("badge", "Write the verdict as a small SVG picture.", "FILE", plain=False)]
Name = Annotated[
    str | None, _option("name", "What the report calls the target, beside its own name.", "TEXT", plain=False)
]
FullPaths = Annotated[bool, _option("full-paths", "Name a local target by its whole path, not its last part.")]
NoDigest = Annotated[bool, _option("no-digest", "Leave out the SHA-256 of local files.")]
Quiet = Annotated[bool, _option("quiet", "No progress, no closing table.", None, "-q")]
Verbose = Annotated[bool, _option("verbose", "Tracebacks, and where the time went.", None, "-v")]

Traps = Annotated[
    TrapModeName,
    _option("traps", "auto: certify, and shuffle the rest; measure: shuffle every matrix; certify: shuffle none."),
]
TrapRule = Annotated[TrapRuleName, _option("trap-rule", "Which edge an eigenvalue must pass to be a trap.")]
NoAlpha = Annotated[bool, _option("no-alpha", "Leave out the power-law exponent: twenty times as fast.")]
Include = Annotated[
    list[str] | None, _option("include", "Only these matrices, by id, tensor or file; repeatable.", "GLOB", plain=False)
]
Exclude = Annotated[
    list[str] | None, _option("exclude", "Not these matrices, named likewise; repeatable.", "GLOB", plain=False)
]
SplitFused = Annotated[bool, _option("split-fused", "Gate and up, or q, k and v, of fused tensors apart.")]
Shuffles = Annotated[int, _option("shuffles", "Shuffles of a matrix near or beyond the edge.", "N")]
Seed = Annotated[int, _option("seed", "The audit's seed.", "N")]
Device = Annotated[str, _option("device", "auto, cpu, cuda or cuda:N.", "DEVICE")]
Backend = Annotated[BackendName, _option("backend", "Array library that computes the spectra.")]
Workers = Annotated[
    int | None,
    _option("workers", "Matrices at once. Default: cores allowed here, or devices.", "N", plain=False),
]
StallTimeout = Annotated[
    float | None,
    _option("stall-timeout", "Give up a worker that has come to a stand for so long.", "SECONDS", plain=False),
]
Engine = Annotated[EngineName, _option("engine", "Where the work runs: this machine, or a Ray cluster.")]
PartOf = Annotated[
    list[str] | None,
    _option("part", "text, vision, …: that part of the model; I/N: one share, for 'merge'.", "PART", plain=False),
]
ModelPart = Annotated[
    list[str] | None, _option("part", "Only this part of the model: text, vision, …; repeatable.", "PART", plain=False)
]
FamilyFile = Annotated[
    Path | None, _option("family", "What the names of this kind of model cannot tell.", "FILE.toml", plain=False)
]
JournalFolder = Annotated[
    Path | None, _option("journal", "Where progress is kept. Default: the user's cache folder.", "DIR", plain=False)
]
Fresh = Annotated[bool, _option("fresh", "Forget the progress kept so far.")]
Revision = Annotated[str | None, _option("revision", "Hub revision. Default: main.", "R", plain=False)]
Subfolder = Annotated[
    str | None, _option("subfolder", "The folder within TARGET to take alone. Default: all of it.", "DIR", plain=False)
]
Download = Annotated[bool, _option("download", "Keep the files in the hub's cache instead of streaming them.")]
