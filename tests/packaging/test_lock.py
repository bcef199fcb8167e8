"""The locked releases: all of them pinned, none that only GPU builds need, and within the ranges of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("dev", "docs", "fuzz", "torch", "calibrate", "train", "gguf", "ray", "weightwatcher", "studies")


def locked(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements" / name).read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+", line) for line in lines)
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_every_direct_dependency_is_locked_within_its_range() -> None:
    pins = locked("dev.txt")
    wanted = [*PROJECT["dependencies"], *(item for extra in EXTRAS for item in PROJECT["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        if requirement.name in ("llmtrap", "torch"):  # torch: which build is right depends on the machine
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_action_s_lock_has_every_dependency_at_the_release_that_is_tested() -> None:
    """Its hashes are held where the action is."""
    text = (ROOT / "requirements" / "action.txt").read_text()
    pins = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.M)}
    direct = {canonicalize_name(Requirement(item).name) for item in PROJECT["dependencies"]}
    assert direct <= set(pins)
    tested = locked("dev.txt")
    assert {name: pins[name] for name in direct} == {name: tested[name] for name in direct}


def test_the_lock_brings_no_gpu_libraries_and_is_of_no_machine() -> None:
    pins = locked("dev.txt") | locked("audit.txt")
    assert not {"torch", "triton"} & set(pins)
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in pins)
    assert not any("+" in version for version in pins.values())
