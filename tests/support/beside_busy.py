"""Run a command beside processes that only use the processor: `python tests/support/beside_busy.py N COMMAND…`."""

from __future__ import annotations

import subprocess
import sys


def main(busy: int, command: list[str]) -> int:
    """The command's exit code."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
