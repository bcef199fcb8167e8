"""The command that measures a report's target again, with the same numbers."""

from __future__ import annotations

import shlex

from llmtrap.report.document import Report


def audit_command(report: Report) -> str:
    """`llmtrap audit TARGET` with every setting that is not the default, quoted for a shell.

    Where the work ran (workers, engine, device) is left out, since it changes no number.
    """
    settings = report.settings
    words = ["llmtrap", "audit", report.target.name]
    if report.target.revision:
        words += ["--revision", report.target.revision]
    if settings.traps != "auto":
        words += ["--traps", settings.traps]
    if settings.trap_rule != "tracy-widom":
        words += ["--trap-rule", settings.trap_rule]
    if not settings.alpha:
        words.append("--no-alpha")
    words += [word for glob in settings.include for word in ("--include", glob)]
    words += [word for glob in settings.exclude for word in ("--exclude", glob)]
    if settings.split_fused:
        words.append("--split-fused")
    if settings.shuffles != 5:
        words += ["--shuffles", str(settings.shuffles)]
    if settings.seed != 0:
        words += ["--seed", str(settings.seed)]
    return shlex.join(words)
