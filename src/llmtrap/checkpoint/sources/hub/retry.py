"""How long a fault is put up with: what is tried again, how often, and when to give up."""

from __future__ import annotations

import email.utils
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import tenacity
from tenacity.wait import wait_base

from llmtrap.checkpoint.sources.hub.silence import Silence
from llmtrap.errors import AccessError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CARRY_ON = "Run the same command again when it is back: it carries on where it stopped"


class TransientError(Exception):
    """A fault that may be gone at the next try. Its text is shown to people, so it holds no address.

    Args:
        reason: what happened, as a clause without a full stop.
        retry_after: seconds that the server asked to be left alone.
    """

    def __init__(self, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


class UnreachedError(TransientError):
    """A server that no connection leads to.

    Args:
        who: the server, as people know it.
        cause: what the system says of it; empty where it says nothing.
    """

    def __init__(self, who: str, cause: str = ""):
        super().__init__(f"{who} cannot be reached ({cause})" if cause else f"{who} cannot be reached")
        self.cause = cause


class ClosedError(Exception):
    """The source was closed while something was still being fetched."""


class _Wait(wait_base):
    """As long as the server asks, else exponentially longer with full jitter, so that threads do not march in step.

    A wait of one's own ends with patience at the latest, so that there is a last try then.
    """

    def __init__(self, longest: float, total: float):
        self._backoff = tenacity.wait_random_exponential(multiplier=0.5, max=longest)
        self._total = total

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        fault = retry_state.outcome.exception() if retry_state.outcome else None
        asked = getattr(fault, "retry_after", None)
        if asked is not None:
            return float(asked)
        left = self._total - (retry_state.seconds_since_start or 0.0)
        return max(0.0, min(self._backoff(retry_state), left))


class RetryPolicy:
    """Tries a call again until it succeeds, for at most `total` seconds without success.

    A server that asks for a pause (Retry-After) is left alone by every thread that shares this object.

    Args:
        total: seconds after which a call that keeps failing is given up.
        closing: set when all trying must end at once.
        longest_wait: seconds between two tries at most, where the server does not ask for more.
        host: the server's name, as people may be told it.
    """

    def __init__(self, total: float, closing: threading.Event, longest_wait: float = 30.0, host: str = "the hub"):
        self._total = total
        self._silence = Silence(host)
        self._closing = closing
        self._longest_wait = longest_wait
        self._lock = threading.Lock()
        self._paused_until = 0.0

    @property
    def total(self) -> float:
        """Seconds after which a call that keeps failing is given up."""
        return self._total

    def heard(self) -> None:
        """Note that bytes are coming in."""
        self._silence.heard()

    def call(self, attempt: Callable[[], Result], *, what: str, file: str | None = None) -> Result:
        """Return what `attempt` returns, calling it again after each TransientError fault.

        Args:
            attempt: the call; it raises TransientError for what is worth another try, anything else to stop.
            what: what is being done, for the log and for the error.
            file: the file concerned.

        Raises:
            AccessError: patience is out.
            ClosedError: the source was closed meanwhile.
        """

        def one_try() -> Result:
            self._wait_for_pause()
            if self._closing.is_set():
                raise ClosedError
            return attempt()

        def note(state: tenacity.RetryCallState) -> None:
            fault = state.outcome.exception() if state.outcome else None
            if getattr(fault, "retry_after", None):
                self._pause(state.upcoming_sleep)
            if isinstance(fault, UnreachedError):
                self._silence.explain(
                    f"cannot reach {self._silence.host}" + (f" ({fault.cause})" if fault.cause else "")
                )
            else:
                self._silence.explain(f"{self._silence.host}: {fault}")
            logger.info("%s: %s; trying again in %.1f s", file or what, fault, state.upcoming_sleep)

        def out_of_patience(state: tenacity.RetryCallState) -> bool:
            elapsed = state.seconds_since_start or 0.0
            return elapsed >= self._total or elapsed + state.upcoming_sleep > self._total + 0.01

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            wait=_Wait(self._longest_wait, self._total),
            stop=out_of_patience,
            sleep=tenacity.sleep_using_event(self._closing),
            before_sleep=note,
            reraise=True,
        )
        try:
            with self._silence.watched(time.time() + self._total):
                return retrying(one_try)
        except TransientError as fault:
            raise AccessError(
                f"{what} failed for {_spoken(self._total)}: {fault}", file=file, remedy=CARRY_ON
            ) from None

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _wait_for_pause(self) -> None:
        self._closing.wait(max(0.0, self._paused_until - time.monotonic()))


def asked_pause(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to be left alone: `Retry-After` (seconds or a date), or an exhausted `RateLimit`.

    Source: RFC 9110 §10.2.3; the hub's rate limits follow draft-ietf-httpapi-ratelimit-headers-09.
    """
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    if after:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
        except ValueError:
            return None
    limit = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))
    return float(limit.group(1)) if limit and status == 429 else None


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:g} seconds"
