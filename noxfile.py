"""The rows of the matrix that every release has to pass, each one session: `nox`, or `nox -s tests-3.13`.

Interpreters that are not on this machine are left out, by name. The sessions `as_user` need root, to become another
user; the others run as whoever calls them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
HERE = Path(__file__).parent
# The version that `make test` installs; a machine with a build that needs no GPU libraries names it here.
TORCH = os.environ.get("TORCH", "torch==2.13.0")
# Without what they ask for, which is 3 GB and on Linux mostly for a GPU.
QUANTISERS = (
    "compressed-tensors", "torchao", "optimum-quanto", "hqq", "bitsandbytes", "mlx", "mlx-cpu", "nvidia-modelopt",
    "gptqmodel",
)  # fmt: skip
PYTEST = ("-m", "pytest", "-q", "-n", "2", "--dist", "loadfile")

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "terminal", "as_user", "together"]


def _install(session: nox.Session) -> None:
    session.install("-c", "requirements/dev.txt", TORCH)
    session.install("-c", "requirements/dev.txt", "-e", ".[dev]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, in random order, as `make test` runs them."""
    _install(session)
    session.run("python", *PYTEST, *session.posargs)


@nox.session(python=PYTHONS)
def terminal(session: nox.Session) -> None:
    """The same with another terminal, language and CI service than the tests were written in."""
    _install(session)
    strange = {"FORCE_COLOR": "1", "COLUMNS": "40", "CI": "true", "LANG": "C", "TZ": "Asia/Kathmandu"}
    session.run("python", *PYTEST, *session.posargs, env=strange)


@nox.session(python=PYTHONS)
def together(session: nox.Session) -> None:
    """The same, four at a time beside two processes that only use the processor."""
    _install(session)
    session.run("python", "tests/support/beside_busy.py", "2", "python", *PYTEST, "-n", "4", *session.posargs)


@nox.session(python="3.11")
def formats(session: nox.Session) -> None:
    """Weights as the libraries themselves quantise them: here each must be there, elsewhere a test may be skipped."""
    _install(session)
    session.install("--no-deps", *QUANTISERS)
    module = "tests/checkpoint/encodings/test_real_libraries.py"
    session.run("python", *PYTEST, module, *session.posargs, env={"LLMTRAP_EVERY_LIBRARY": "1"})


@nox.session(python=PYTHONS)
def as_user(session: nox.Session) -> None:
    """The same as an ordinary user with private files, in a folder whose name has a space and an accent."""
    user = os.environ.get("LLMTRAP_TEST_USER", "nobody")
    if os.geteuid() != 0 or sys.platform != "linux":
        session.skip("becoming another user takes root, on Linux")
    with tempfile.TemporaryDirectory(prefix="llmtrap é ") as scratch:
        place = Path(scratch)
        clone = place / "a clone"
        session.run("git", "clone", "--quiet", str(HERE), str(clone), external=True)
        home = place / "home"
        home.mkdir()
        weights = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmtrap-tests"
        if weights.exists():  # they are downloaded otherwise
            shutil.copytree(weights, home / ".cache" / "llmtrap-tests")
        subprocess.run(["chown", "-R", user, str(place)], check=True)  # noqa: S603, S607
        script = (
            f'umask 077 && cd "$1" && "$2" -m venv .venv && .venv/bin/pip install -q -c requirements/dev.txt "{TORCH}" '
            f"&& .venv/bin/pip install -q -c requirements/dev.txt -e '.[dev]' && .venv/bin/python {' '.join(PYTEST)}"
        )
        interpreter = str(Path(session.bin) / "python")
        command = [
            "setpriv",
            f"--reuid={user}",
            "--clear-groups",
            "bash",
            "-c",
            script,
            "bash",
            str(clone),
            interpreter,
        ]
        session.run(*command, external=True, env={"HOME": str(home)})
