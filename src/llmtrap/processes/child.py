"""The program of a worker process, run as a script: `python -P child.py DESCRIPTOR`.

Nothing is imported from the folder that the command was started in (`-P`): it may be a stranger's checkpoint. Signals
are blocked when this program begins, and stay so until it has said what they mean here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """Settle signals and the parent's end, then import what the parent imports from, and serve it."""
    # Ctrl-C and a closed terminal reach every process of the group: the parent ends its workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A Python handler would wait for the eigensolver, which may take minutes: end at once
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()

    from multiprocessing.connection import Connection  # noqa: PLC0415  (nothing before the signals are settled)

    connection: Connection = Connection(int(sys.argv[1]))
    try:
        sys.path[:] = connection.recv()
    except (EOFError, OSError):
        return
    from llmtrap.processes.serving import serve  # noqa: PLC0415

    serve(connection)


def _end_with_parent() -> None:
    """Once the parent has ended, by whatever means, this process ends at once: nobody would take its results.

    The parent alone holds the other end of standard input, and writes nothing to it. A training would go on for hours,
    into a folder that the same command, started again, writes too.
    """
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
