"""llmtrap on a Python without what Windows lacks: a program whose last line of output says how it fared.

What others import (the standard library, NumPy, …) is loaded first: on Windows they have files of their own for it.
Then modules and names go, and llmtrap is imported and used: every module of it; an audit, carried on; a gate.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import os
import pkgutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
NAMES: dict[ModuleType, tuple[str, ...]] = {
    os: (
        "O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "fchmod", "fchown", "fork", "forkpty",
        "geteuid", "getegid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "posix_fadvise", "pread", "preadv",
        "pwrite", "pwritev", "sched_getaffinity", "sched_setaffinity", "setpgid", "setsid", "sync", "sysconf", "uname",
    ),
    signal: (
        "ITIMER_REAL", "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGUSR2", "alarm",
        "pthread_kill", "pthread_sigmask", "setitimer", "sigwait",
    ),
}  # fmt: skip
LOADED_FIRST = (
    "asyncio", "concurrent.futures", "filelock", "getpass", "huggingface_hub.hf_api", "jinja2",
    "huggingface_hub.utils._terminal", "multiprocessing.connection",
    "multiprocessing.pool", "numpy", "plotly.graph_objects", "psutil", "pydantic", "rich.progress", "safetensors.numpy",
    "scipy.linalg", "scipy.optimize", "scipy.special", "scipy.stats", "shutil", "socket", "subprocess", "tempfile",
    "platformdirs.unix", "threadpoolctl", "typer.testing",
)  # fmt: skip


# Seconds to load, and what llmtrap has for them is held by the test that reads its source.
NOT_LOADED = ("torch", "transformers", "lightning", "ray")


class Absent(importlib.abc.MetaPathFinder):
    """Finds none of the modules."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"no module named {name!r} here", name=name)


def take_away() -> None:
    """From here on it is as on Windows, as far as that can be had."""
    for name in LOADED_FIRST:
        importlib.import_module(name)
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(dict.fromkeys(NOT_LOADED))  # type: ignore[arg-type]
    sys.meta_path.insert(0, Absent())
    for module in NAMES:
        whole = ModuleType(module.__name__)
        whole.__dict__.update(module.__dict__)
        for loaded in [found for found in sys.modules.values() if isinstance(found, ModuleType)]:
            if vars(loaded).get(module.__name__) is module and loaded is not sys.modules["__main__"]:
                vars(loaded)[module.__name__] = whole
    for module, names in NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    os.supports_dir_fd.clear()
    opens: Callable[..., int] = os.open

    def open_(path: Any, flags: int, mode: int = 0o777) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))  # no folder is opened there
        return opens(path, flags, mode)

    os.open = open_  # type: ignore[assignment]


def imported() -> dict[str, str]:
    """What went wrong with each module of llmtrap; those that need what is not installed are left out."""
    import llmtrap  # noqa: PLC0415

    wrong = {}
    for found in pkgutil.walk_packages(llmtrap.__path__, "llmtrap."):
        if found.name == "llmtrap.__main__":
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name not in NOT_LOADED:
                wrong[found.name] = traceback.format_exc()
        except llmtrap.LlmtrapError as error:
            if "extra 'train'" not in str(error):
                wrong[found.name] = str(error)
        except Exception:
            wrong[found.name] = traceback.format_exc()
    return wrong


def used(folder: Path) -> dict[str, Any]:
    """What some commands end with, and what they say."""
    from typer.testing import CliRunner  # noqa: PLC0415

    from llmtrap.cli import app  # noqa: PLC0415

    def llmtrap(*words: str) -> list[Any]:
        done = CliRunner().invoke(app, list(words))
        return [done.exit_code, done.output if done.exception is None else f"{done.output}\n{done.exception!r}"]

    model, journal = str(folder / "model"), str(folder / "j")
    quick = ("--no-alpha", "--journal", journal)
    found = {"workers": llmtrap("audit", model, "--workers", "2", *quick)}
    found["part"] = llmtrap("audit", model, *quick, "--part", "1/2", "--json", str(folder / "part.json"))
    found["audit"] = llmtrap("audit", model, *quick, "--json", str(folder / "r.json"), "--html", str(folder / "r.html"))
    found["gate"] = llmtrap("gate", model, "--baseline", str(folder / "r.json"), "--journal", journal)
    found["inspect"] = llmtrap("inspect", model)
    found["verify"] = llmtrap("verify", model)
    found["calibrate"] = llmtrap("calibrate", "--task", "digits", "--out", str(folder / "runs"))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    take_away()
    sys.stdout.write(json.dumps({"wrong": imported(), "used": used(Path(sys.argv[1]))}))
