"""Silence that is not left unexplained: whoever waits for a server is told so within two seconds."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from llmtrap.printable import printable

logger = logging.getLogger(__name__)

# Seconds without a byte after which it is said; each time that it is said again takes twice as long, and yet no silence
# lasts five. Workers, of whom there are many, say it less often: the process that the user started speaks too as long
# as it reads from the hub itself.
SAID_AFTER = 1.5
SAID_AT_LEAST_EVERY = 4.5
SAID_BY_WORKERS_AFTER = 30.0
LOOKED_EVERY = 0.25
_WATCHED_ON = 4.0  # without a call, before the thread ends


class Silence:
    """Watches calls to one server, and logs a warning while they wait and nothing comes.

    Args:
        host: the server's name, as people may be told it.
    """

    def __init__(self, host: str):
        self.host = printable(host, 120)
        self._lock = threading.Lock()
        self._ends: dict[int, float] = {}
        self._numbers = itertools.count()
        self._heard = time.monotonic()
        self._watching = False
        self._reason = ""

    def heard(self) -> None:
        """Note that bytes are coming in."""
        self._heard = time.monotonic()

    def explain(self, reason: str) -> None:
        """Say from now on why nothing comes, until a call ends well."""
        self._reason = printable(reason, 320)

    @contextmanager
    def watched(self, until: float) -> Iterator[None]:
        """Watch a call that is given up at this time (seconds since the epoch)."""
        number = next(self._numbers)
        with self._lock:
            if not self._ends:
                self._reason, self._heard = "", time.monotonic()
            self._ends[number] = until
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="llmtrap-hub-silence", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                del self._ends[number]
            self.heard()

    def _watch(self) -> None:
        """Speak up while calls wait; end when there has been none for a while."""
        first = SAID_AFTER if multiprocessing.parent_process() is None else SAID_BY_WORKERS_AFTER
        pause, spoken = first, self._heard
        while True:
            time.sleep(LOOKED_EVERY)
            if self._heard > spoken:
                pause = first
            with self._lock:
                idle = not self._ends and time.monotonic() - self._heard > _WATCHED_ON
                if idle:
                    self._watching = False
                    return
                until = max(self._ends.values(), default=None)
            if until is not None and time.monotonic() - max(self._heard, spoken) >= pause:
                spoken, pause = time.monotonic(), max(first, min(2 * pause, SAID_AT_LEAST_EVERY))
                end = time.strftime("%H:%M:%S", time.localtime(until))
                if self._reason:
                    logger.warning("%s, trying again until %s", self._reason, end)
                else:
                    logger.warning("no answer from %s yet, waiting until %s", self.host, end)
