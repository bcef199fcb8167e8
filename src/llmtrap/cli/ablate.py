"""`llmtrap ablate`: take traps and large entries out of a language model, one at a time, and see what changes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, messages, output
from llmtrap.errors import MissingExtraError, UsageError

_NEEDED = ("torch", "transformers", "accelerate", "tokenizers")


def ablate_command(
    target: o.Target,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="REPORT.json", help="An audit of TARGET. Default: audited for traps first."),
    ] = None,
    matrix: Annotated[
        list[str] | None,
        typer.Option("--matrix", metavar="GLOB", help="The large entries of these matrices alone; repeatable."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="At most so many candidates.")] = 32,
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="A text in the place of the bundled passage.")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's component replacement too, beside its noise alone.")
    ] = False,
    screen: Annotated[
        Literal["fisher"] | None,
        typer.Option("--screen", help="Score every entry of the layers first, in one backward pass; small models."),
    ] = None,
    json: o.JsonFile = None,
    html: o.HtmlFile = None,
    markdown: o.MarkdownFile = None,
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="cpu, cuda or cuda:N.")] = "cpu",
    seed: o.Seed = 0,
    revision: o.Revision = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Does a trap matter? Take each out of the model, one at a time, and measure what changes.

    The model runs layer by layer, so that one layer is in memory at a time.
    """
    from llmtrap.checkpoint import open_checkpoint
    from llmtrap.cli.report_outputs import check_places

    with guarded(verbose=verbose):
        if any(find_spec(name) is None for name in _NEEDED):
            raise MissingExtraError.of("llmtrap ablate", "ablation")
        # Imported here: torch takes seconds, and the other commands need none of it.
        from llmtrap.ablation.outputs import show, write
        from llmtrap.ablation.run import AblationSettings, ablate
        from llmtrap.audit import AuditSettings, audit
        from llmtrap.report.read import read_report

        _check_device(device)
        check_places({"--json": json, "--html": html, "--markdown": markdown})
        say = messages()
        checkpoint = open_checkpoint(target, revision=revision)
        try:
            if report is not None:
                document = read_report(report)
                identity = checkpoint.catalogue.identity
                mine = identity.shown_name
                if document.target.name not in (mine, identity.name):
                    problem = f"the report is of {document.target.name}, and the target is {mine}"
                    raise UsageError(problem, file=str(report), remedy="Give the report of this target")
            else:
                if not quiet:
                    say.print("audited for traps first; --report REPORT.json saves this", soft_wrap=True)
                document = audit(target, AuditSettings(alpha=False, seed=seed), revision=revision, journal=True)
            settings = AblationSettings(tuple(matrix or ()), top, text, paper, device, seed, screen)
            found = ablate(
                checkpoint, document, settings, None if quiet else lambda line: say.print(line, soft_wrap=True)
            )
        finally:
            checkpoint.source.close()
        piped = write(found, json, html, markdown)
        if piped is not None:
            typer.echo(piped, nl=False)
        elif not quiet:
            show(found, output())


def _check_device(device: str) -> None:
    import torch

    from llmtrap.errors import DeviceError

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise DeviceError(f"no device is called {device!r}", remedy="Give cpu, cuda or cuda:N") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError("PyTorch sees no CUDA device", remedy="Leave --device out to run on the CPU")
