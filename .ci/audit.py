"""Hold the locked dependencies against the published advisories, and say which could not be held against them.

    python .ci/audit.py PIP_AUDIT REQUIREMENTS…

Exits 1 where a locked release has a known vulnerability, and 2 where the releases were not all checked: the auditor
crashed, found no package at all, or skipped some. Where the advisory service cannot be reached that is said plainly
and is no failure: a machine without it must still be able to build.
"""

from __future__ import annotations

import json
import subprocess
import sys

NOT_FOUND = "not found on PyPI"
MANY = 50
"""Releases of which PyPI knows some: an index that knows none is a mirror without advisories."""


def main(command: str, *files: str) -> int:
    """Run pip-audit over the files and judge what it says."""
    asked = [item for file in files for item in ("--requirement", file)]
    done = subprocess.run(
        [command, "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", *asked],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return _unreachable(done.stderr) if _is_network(done.stderr) else _failed(done.stderr or "it said nothing")
    if not packages:
        return _failed("it found no package to check")
    skipped = [package for package in packages if "skip_reason" in package]
    if len(packages) >= MANY and all(NOT_FOUND in package.get("skip_reason", "") for package in packages):
        return _unreachable(f"the index in use knows none of {len(packages)} releases, so it is no PyPI")
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no release yet"
            print(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    for package in skipped:
        print(f"{package['name']}: not checked ({package['skip_reason']})")
    print(f"{len(packages) - len(skipped)} of {len(packages)} releases checked, {len(vulnerable)} vulnerable")
    if vulnerable:
        return 1
    return 2 if skipped or done.returncode else 0


def _is_network(message: str) -> bool:
    """Whether the last line of the auditor's traceback names an error of the network; its other words do not count."""
    last = (message.strip().splitlines() or [""])[-1]
    kind = last.partition(":")[0].rpartition(".")[2]
    return kind in ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError", "ProxyError", "SSLError")


def _unreachable(message: str) -> int:
    reason = message.strip().splitlines()[-1][:300]
    print(f"WARNING: no release was checked: the advisory service could not be reached ({reason})")
    return 0


def _failed(message: str) -> int:
    print(f"the auditor failed, and no release was checked:\n{message[-2000:]}")
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
