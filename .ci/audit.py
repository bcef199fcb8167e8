"""Hold the locked dependencies against the published advisories, and say which could not be held against them.

    python .ci/audit.py PIP_AUDIT REQUIREMENTS…

Exits 1 where a locked release has a known vulnerability. Where the advisory service cannot be reached that is said, and
is no failure: a machine without it must still be able to build.
"""

from __future__ import annotations

import json
import subprocess
import sys


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
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        return _unreachable("no release was checked", reason) if _is_network(done.stderr) else _broken(done.stderr)
    skipped = [package for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no release yet"
            print(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    print(f"{len(packages) - len(skipped)} of {len(packages)} releases checked, {len(vulnerable)} vulnerable")
    if skipped:
        _unreachable(f"{len(skipped)} releases were not checked", skipped[0]["skip_reason"])
    return 1 if vulnerable else 0


def _is_network(message: str) -> bool:
    return any(word in message for word in ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError"))


def _unreachable(what: str, reason: str) -> int:
    print(f"WARNING: {what}: the advisory service could not be reached, or does not know them ({reason})")
    return 0


def _broken(message: str) -> int:
    print(message[-2000:])
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
