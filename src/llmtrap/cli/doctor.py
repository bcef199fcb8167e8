"""`llmtrap doctor`: what this machine has: devices, libraries, threads and extras."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llmtrap.cli.console import guarded, output
from llmtrap.version import __version__

if TYPE_CHECKING:
    from rich.table import Table


CORE = ("numpy", "scipy", "safetensors", "ml-dtypes", "huggingface-hub", "plotly")
# Extra, and the modules that tell whether it is installed.
EXTRAS = {
    "cuda12 or cuda13": ("cupy",),
    "torch": ("torch",),
    "calibrate": ("torch", "transformers", "accelerate", "sklearn"),
    "ablation": ("torch", "transformers", "accelerate"),
    "gguf": ("gguf",),
    "ray": ("ray",),
    "weightwatcher": ("weightwatcher",),
}


def doctor_command() -> None:
    """Show the devices, libraries, threads and extras found here."""
    with guarded():
        output().print(_found())


def _found() -> Table:
    from rich.table import Table
    from threadpoolctl import threadpool_info

    from llmtrap.audit import RunOptions, default_folder
    from llmtrap.spectra.backends import cuda_device_count, select_backend

    table = Table.grid(padding=(0, 2))
    table.add_row("llmtrap", __version__)
    table.add_row("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in CORE:
        table.add_row(name, _version(name))
    for library in threadpool_info():
        if library["user_api"] == "blas":
            kernel = library.get("architecture") or "unknown kernel"
            table.add_row("BLAS", f"{library['internal_api']} {library['version']} ({kernel})")
    table.add_row("workers", f"{RunOptions().workers} by default, one BLAS thread each")
    table.add_row("CUDA devices", str(cuda_device_count()))
    table.add_row("backend", f"{select_backend().name} (what --backend auto --device auto takes)")
    table.add_row("journals", str(default_folder()))
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        table.add_row(f"extra {extra}", f"not installed ({', '.join(missing)} missing)" if missing else "installed")
    return table


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
