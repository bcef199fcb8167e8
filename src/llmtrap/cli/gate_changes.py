"""What `llmtrap gate` changes when it is asked to: the policy (--accept) and the baseline (--update-baseline)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from llmtrap.cli.console import messages
from llmtrap.errors import UsageError
from llmtrap.gate.accept import Acceptance, Accepted, accept, prepare
from llmtrap.gate.new_baseline import what_is_replaced, write_baseline
from llmtrap.gate.policy_file import LoadedPolicy
from llmtrap.gate.run import GateResult, judge_again, today
from llmtrap.report.formatting import plural, printable

_MOST_NAMED = 10


class Changes:
    """Both changes, each None where it was not asked for; `accepted` is what has been written to the policy."""

    def __init__(self, acceptance: Acceptance | None, baseline: Path | None, replaced: str | None):
        self._acceptance, self._baseline, self._replaced = acceptance, baseline, replaced
        self._accepted: Accepted | None = None

    @classmethod
    def prepare(
        cls,
        targets: Sequence[str],
        policy: Path | None,
        reason: str | None,
        expires: datetime.datetime | None,
        baseline: Path | None,
    ) -> Changes:
        """From the options, each place tried before anything is measured.

        Raises:
            UsageError: the options do not go together.
            LlmtrapError: a place cannot be written, or must not be.
        """
        if reason is None and expires is not None:
            raise UsageError("--expires is of what --accept writes", remedy="Give --accept REASON with it")
        if len(targets) > 1 and (reason is not None or baseline is not None):
            option = "--accept" if reason is not None else "--update-baseline"
            problem = f"{option} is of one target, and several reports are judged"
            raise UsageError(problem, remedy="Judge them one by one")
        acceptance = None
        if reason is not None:
            day = None if expires is None else expires.date()
            acceptance = prepare(reason, day, policy, targets[0], today())
        return cls(acceptance, baseline, None if baseline is None else what_is_replaced(baseline))

    @property
    def policy(self) -> LoadedPolicy | None:
        """The policy that --accept adds to, which need not be a file yet; None without it."""
        return None if self._acceptance is None else self._acceptance.loaded

    def accept(self, gated: GateResult) -> GateResult:
        """Write the ignores, and judge by them."""
        if self._acceptance is None:
            return gated
        self._accepted = accept(gated.judgement, self._acceptance)
        return judge_again(gated, self._accepted.loaded) if self._accepted.ignores else gated

    def finish(self, judged: Sequence[GateResult], *, quiet: bool) -> None:
        """Say what was accepted, write the new baseline, and say what that replaced.

        Raises:
            LlmtrapError: the target must not be a baseline, or it could not be written.
        """
        if self._accepted is not None:
            _say(_accepted_words(self._accepted), quiet=quiet)
        if self._baseline is not None:
            write_baseline(judged[0].judgement, judged[0].whole, self._baseline)
            over = "" if self._replaced is None else f"; it replaced {self._replaced}"
            _say(f"written: the new baseline {printable(str(self._baseline))}{over}", quiet=quiet)


def _say(words: str, *, quiet: bool) -> None:
    if not quiet:
        messages().print(words, soft_wrap=True)


def _accepted_words(accepted: Accepted) -> str:
    file = printable(str(accepted.path))
    if not accepted.ignores:
        return f"nothing to accept: no rule is violated; {file} is as it was"
    named = [f"{ignore.rule} {printable(ignore.match, 80)}" for ignore in accepted.ignores[:_MOST_NAMED]]
    more = len(accepted.ignores) - len(named)
    shown = ", ".join(named) + (f", and {more:,} more" if more else "")
    day = accepted.ignores[0].expires
    until = "" if day is None else f", until {day.isoformat()}"
    new = "the new file " if accepted.new_file else ""
    return f"written: {plural(len(accepted.ignores), 'ignore')} into {new}{file}{until}: {shown}"
