"""Accept what a gate found: an `[[ignore]]` block for each violation, appended to the policy file."""

from __future__ import annotations

import datetime
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmtrap.checkpoint.selection import PART
from llmtrap.errors import OutputError, UsageError
from llmtrap.gate.document import Finding, Judgement
from llmtrap.gate.policy import Ignore, Policy
from llmtrap.gate.policy_file import (
    LIMIT_BYTES,
    OWN_FILE,
    PYPROJECT,
    LoadedPolicy,
    belongs_to,
    load_policy,
    parse_policy,
    read_policy_bytes,
)
from llmtrap.gate.rules import CHECKPOINT, COVERAGE
from llmtrap.printable import quoted
from llmtrap.report.formatting import plural, printable
from llmtrap.report.trial import try_writing
from llmtrap.report.write import write_whole


@dataclass(frozen=True)
class Acceptance:
    """That violations are accepted: why, until when, and in which policy file that is written.

    `loaded` is the policy in force, which need not be a file yet. `typed`: the user named the file.
    """

    reason: str
    expires: datetime.date | None
    path: Path
    typed: bool
    loaded: LoadedPolicy


@dataclass(frozen=True)
class Accepted:
    """What was written, none where there was nothing to accept, and the policy as it is now."""

    ignores: tuple[Ignore, ...]
    path: Path
    new_file: bool
    loaded: LoadedPolicy = field(repr=False)


def prepare(
    reason: str, expires: datetime.date | None, policy: Path | None, target: str, today: datetime.date
) -> Acceptance:
    """Look, before anything is measured, whether violations could be accepted.

    Args:
        reason: for whoever reads the policy next.
        expires: the last day on which it holds; None for no end.
        policy: the file that the user named; it need not be there. Without one it is the file whose policy applies, or
            `llmtrap.toml` in the current folder.
        target: what will be judged.
        today: the current day.

    Raises:
        UsageError: there is no reason, the day has passed, or the file would be the target's own.
        OutputError: it cannot be written, or is a link that nobody typed.
    """
    if not reason.strip():
        raise UsageError("--accept has no reason", remedy="Say why it is no problem, for whoever reads the policy next")
    if expires is not None and expires < today:
        raise UsageError(f"--expires {expires.isoformat()} has passed", remedy="Name the last day on which it holds")
    if policy is not None and not os.path.lexists(policy):
        loaded = LoadedPolicy(Policy())
    else:
        loaded = load_policy(policy, target=target)
    path = policy or loaded.path or Path(OWN_FILE)
    if belongs_to(path, target):
        problem = "this policy lies in the target, which would accept its own violations"
        raise UsageError(problem, file=str(path), remedy="Name a policy elsewhere with --policy")
    if policy is None and path.is_symlink():
        problem = "the policy is a link, which is not followed to write"
        raise OutputError(problem, file=str(path), remedy="Name the file itself with --policy")
    try_writing(path)
    return Acceptance(reason, expires, path, policy is not None, loaded)


def accept(judgement: Judgement, acceptance: Acceptance) -> Accepted:
    """Append an ignore for every violation to the policy file; what stands in it is kept byte for byte.

    What could not be judged (LT006) is no violation, and is not accepted.

    Raises:
        UsageError: the file would be no policy any more, or hold more than one may.
        OutputError: it could not be written.
    """
    path, there = acceptance.path, os.path.lexists(acceptance.path)
    violations = [finding for finding in judgement.errors if finding.rule != COVERAGE]
    blocks: dict[tuple[str, str | None], tuple[Finding, Ignore]] = {}
    for finding in violations:  # one ignore holds for all that a rule says of a matrix: the worst is named beside it
        blocks.setdefault((finding.rule, finding.id), (finding, _ignore(finding, acceptance)))
    ignores = tuple(ignore for _, ignore in blocks.values())
    if not ignores:
        return Accepted((), path, new_file=False, loaded=acceptance.loaded)
    # Read again: a gate takes its time, and somebody may have written to the file meanwhile.
    before = read_policy_bytes(path) if there and path.exists() else b""
    newline = "\r\n" if b"\r\n" in before else "\n"
    text = "".join(line + newline for line in _lines(blocks.values(), before, path))
    content = before + text.encode()
    if len(content) > LIMIT_BYTES:
        problem = f"{plural(len(ignores), 'ignore')} are more than a policy may hold ({LIMIT_BYTES:,} bytes)"
        remedy = 'Set the rule to level = "warn", or write one ignore with a glob'
        raise UsageError(problem, file=str(path), remedy=remedy)
    loaded = _checked(before, content, ignores, path)
    write_whole(path, content, within=None if acceptance.typed else Path())
    return Accepted(ignores, path, not there, loaded)


def _ignore(finding: Finding, acceptance: Acceptance) -> Ignore:
    match = CHECKPOINT if finding.id is None else glob.escape(finding.id)
    if match.startswith(PART):  # an id, and no part of the model
        match = f"[{match[0]}]{match[1:]}"
    return Ignore(rule=finding.rule, match=match, reason=acceptance.reason, expires=acceptance.expires)


def _lines(blocks: Iterable[tuple[Finding, Ignore]], before: bytes, path: Path) -> Iterator[str]:
    if before and not before.endswith(b"\n"):
        yield ""
    table = "tool.llmtrap.ignore" if path.name == PYPROJECT else "ignore"
    for place, (finding, ignore) in enumerate(blocks):
        if before or place:
            yield ""
        yield f"# {finding.name}: {printable(finding.message, 200)}"
        yield f"[[{table}]]"
        yield f"rule = {quoted(ignore.rule)}"
        yield f"match = {quoted(ignore.match)}"
        yield f"reason = {quoted(ignore.reason)}"
        if ignore.expires is not None:
            yield f"expires = {ignore.expires.isoformat()}"


def _checked(before: bytes, after: bytes, ignores: tuple[Ignore, ...], path: Path) -> LoadedPolicy:
    """The policy after writing: the same, and these ignores."""
    was = parse_policy(before, path, required=False).policy
    try:
        loaded = parse_policy(after, path)
    except UsageError as error:
        problem = f"ignores cannot be appended: {error.problem}"
        raise UsageError(problem, file=str(path), remedy="Write the ignores in it as [[ignore]] blocks") from error
    if loaded.policy != was.model_copy(update={"ignore": (*was.ignore, *ignores)}):
        raise UsageError("ignores cannot be appended: they would change the policy", file=str(path), remedy="Edit it")
    return loaded
