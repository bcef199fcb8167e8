"""`llmtrap.audit` and `llmtrap.analyze`: one call from a target to its report, with the command line's options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from llmtrap.audit.journal import default_folder
from llmtrap.audit.plan import unused_patterns
from llmtrap.audit.run import AuditRun, Event, Finished, journal_for
from llmtrap.audit.settings import ALONE_SECONDS, AuditSettings, RunOptions, TrapMode, TrapRule
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.families import read_family
from llmtrap.checkpoint.memory.arrays import memory_tensor
from llmtrap.checkpoint.opening import Target
from llmtrap.checkpoint.selection import PART, check_parts
from llmtrap.errors import MatrixError, UsageError
from llmtrap.report import document
from llmtrap.report.judging import judged
from llmtrap.report.rarity.reference import chosen_reference

Settings = TypeVar("Settings", AuditSettings, RunOptions)
Observer = Callable[[Event], object]

_ADAPTERS: dict[object, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (AuditSettings, RunOptions)}


def audit(
    target: Target,
    settings: AuditSettings | None = None,
    *,
    alpha: bool = True,
    traps: TrapMode = "auto",
    trap_rule: TrapRule = "tracy-widom",
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    part: str | Iterable[str] = (),
    split_fused: bool = False,
    shuffles: int = 5,
    seed: int = 0,
    device: str = "auto",
    backend: Literal["auto", "numpy", "cupy", "torch"] = "auto",
    workers: int | None = None,
    stall_timeout: float | None = None,
    progress: bool | Observer = True,
    revision: str | None = None,
    subfolder: str | None = None,
    family: str | Path | None = None,
    download: bool = False,
    journal: str | Path | bool = False,
    reference: str | Path | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    **unknown: object,
) -> document.Report:
    """Audit a checkpoint, or weights in memory, and return the report.

        report = llmtrap.audit("path/to/model")
        report = llmtrap.audit(model, alpha=False)
        print(report.summary.verdict)

    Args:
        target: a folder, one weights file, a hub repository `org/name[/folder][@revision]`, or a URL (`s3://…`); or a
            `torch.nn.Module`, a state dict, or a mapping of names to NumPy, PyTorch, JAX or CuPy arrays, which are not
            copied.
        settings: what to measure, in the place of all options up to `backend`.
        alpha: whether the power-law exponent is fitted; without it an audit is twenty times as fast.
        traps: `auto` certifies and shuffles the rest, `measure` shuffles every matrix, `certify` none.
        trap_rule: which edge an eigenvalue must pass to be a trap.
        include: only these matrices: globs on ids, tensor names and files.
        exclude: not these matrices.
        part: only these parts of the model: `text`, `vision`, ….
        split_fused: gate and up, or q, k and v, of fused tensors apart.
        shuffles: shuffles of a matrix near or beyond the edge.
        seed: the audit's seed.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        backend: array library that computes the spectra.
        workers: matrices at once, each in a process of its own; 1 stays in this one. None takes every core where there
            is enough to do.
        stall_timeout: seconds after which a worker that uses no processor time is given up.
        progress: a bar, on a terminal or in a notebook and nowhere else; False for none; or a function that is called
            with every event.
        revision: hub revision.
        subfolder: the folder within the target to audit alone.
        family: a file that says what the names of this kind of model cannot tell.
        download: keep a hub repository's files instead of streaming them.
        journal: a folder to keep progress in, True for the default one, False for none.
        reference: what published models have: a file of `llmtrap reference build`, "none", or None for the table that
            ships with the package.
        name: what weights in memory are called in the report.
        config: what a config.json would say of weights in memory; a module's own by default.
        unknown: any other option is an error that names the nearest one.

    Raises:
        LlmtrapError: the target cannot be audited; the message names the file, the tensor and the remedy.
    """
    _refuse_unknown(unknown, audit.__kwdefaults__ or {})
    given = {
        "alpha": alpha, "traps": traps, "trap_rule": trap_rule, "include": _texts("include", include),
        "exclude": _texts("exclude", exclude), "split_fused": split_fused, "shuffles": shuffles, "seed": seed,
        "device": device, "backend": backend,
    }  # fmt: skip
    published = chosen_reference(None if reference is None else str(reference))
    parts = tuple(PART + word for word in _texts("part", part))
    chosen = _settings(settings, given, parts)
    run_options = _checked(
        RunOptions, {"stall_timeout": stall_timeout} | ({} if workers is None else {"workers": workers})
    )
    checkpoint = open_checkpoint(
        target, split_fused=chosen.split_fused, revision=revision, subfolder=subfolder, download=download,
        family=None if family is None else read_family(Path(family)), name=name, config=config,
    )  # fmt: skip
    try:
        check_parts(checkpoint.matrices, parts)
        unused_patterns(checkpoint.matrices, chosen)
        kept = None
        if journal is not False:
            kept = journal_for(checkpoint, default_folder() if journal is True else Path(journal))
        run = AuditRun(checkpoint, chosen, run_options, kept)
        if workers is None and run.plan.core_seconds < ALONE_SECONDS:
            run.options = RunOptions(workers=1, stall_timeout=stall_timeout)
        return judged(_follow(run, progress), published)
    finally:
        checkpoint.source.close()


def analyze(
    W: Any,
    *,
    alpha: bool = True,
    traps: TrapMode = "auto",
    trap_rule: TrapRule = "tracy-widom",
    shuffles: int = 5,
    seed: int = 0,
    device: str = "auto",
    backend: Literal["auto", "numpy", "cupy", "torch"] = "auto",
    name: str = "W",
    **unknown: object,
) -> document.Matrix:
    """Measure one matrix, as an audit measures each of a model's.

        found = llmtrap.analyze(W)
        print(found.alpha.value, found.traps.centred)

    Args:
        W: a two-dimensional array of NumPy, PyTorch, JAX or CuPy.
        alpha: whether the power-law exponent is fitted.
        traps: as `audit` takes it.
        trap_rule: which edge an eigenvalue must pass to be a trap.
        shuffles: shuffles of a matrix near or beyond the edge.
        seed: the seed of the shuffles.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        backend: array library that computes the spectra.
        name: what the matrix is called; the shuffles depend on it.
        unknown: any other option is an error that names the nearest one.

    Raises:
        UsageError: it has not two dimensions, or an option is wrong.
        MatrixError: it cannot be measured.
    """
    _refuse_unknown(unknown, analyze.__kwdefaults__ or {})
    shape = memory_tensor(name, W).shape
    if len(shape) != 2 or 0 in shape:
        problem = f"a matrix has rows and columns, and this has the shape {shape}"
        raise UsageError(problem, tensor=name, remedy="Give one matrix, or a mapping of names to arrays to audit")
    report = audit(
        {name: W}, alpha=alpha, traps=traps, trap_rule=trap_rule, shuffles=shuffles, seed=seed, device=device,
        backend=backend, workers=1, progress=False, reference="none",
    )  # fmt: skip
    for failed in report.coverage.failed:
        raise MatrixError(failed.error, tensor=name)
    if not report.matrices:
        reason = report.coverage.skipped[0].reason if report.coverage.skipped else "nothing of it was measured"
        raise MatrixError(f"not measured: {reason}", tensor=name, remedy="Give a matrix of numbers")
    return report.matrices[0]


def _follow(run: AuditRun, progress: bool | Observer) -> document.Report:
    from llmtrap.audit.progress import shown  # noqa: PLC0415  (Rich is needed where something is shown alone)

    events = run.events()
    try:
        with shown(run, progress) as see:
            for event in events:
                see(event)
                if isinstance(event, Finished) and event.report is not None:
                    return event.report
    finally:
        events.close()
    raise RuntimeError("the run ended without a report")


def _settings(settings: AuditSettings | None, given: dict[str, Any], parts: tuple[str, ...]) -> AuditSettings:
    usual = AuditSettings()
    changed = [name for name, value in given.items() if value != getattr(usual, name)]
    if settings is not None:
        if changed or parts:
            problem = f"{changed[0] if changed else 'part'} was given beside settings, which say it too"
            raise UsageError(problem, remedy="Give it in AuditSettings, or leave settings out")
        return settings
    given["include"] = (*given["include"], *parts)
    return _checked(AuditSettings, given)


def _checked(kind: Callable[..., Settings], given: dict[str, Any]) -> Settings:
    """The settings of these values.

    Raises:
        UsageError: one is of another type, or none that there is.
    """
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in given.items()}  # NumPy's numbers
    try:
        found: Settings = _ADAPTERS[kind].validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]) if first["loc"] else "an option"
        problem = f"{option}={plain.get(option)!r} is no value for it"
        raise UsageError(problem, remedy=str(first["msg"])) from None
    return found


def _texts(option: str, given: str | Iterable[str]) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(text, str) for text in found):
        raise UsageError(
            f"{option}={given!r} is neither a pattern nor several", remedy="Give texts, such as 'layers.3.*'"
        )
    return found


def _refuse_unknown(unknown: Mapping[str, object], known: Iterable[str]) -> None:
    for word in unknown:
        if word.startswith("no_") and word[3:] in known:
            raise UsageError(f"there is no option {word}", remedy=f"Give {word[3:]}=False")
        near = get_close_matches(word, known, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}"
        raise UsageError(f"there is no option {word}", remedy=remedy)
