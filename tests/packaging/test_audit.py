"""What `make audit` makes of pip-audit's answers: a known vulnerability fails, an absent service is said aloud.

pip-audit itself needs the network; here a script stands in its place and answers in its format.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
SOUND = {"name": "numpy", "version": "2.4.0", "vulns": []}
VULNERABLE = {
    "name": "jinja2", "version": "3.1.2",
    "vulns": [{"id": "PYSEC-2024-1", "fix_versions": ["3.1.3"], "aliases": [], "description": "x"}],
}  # fmt: skip
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}


def audit(folder: Path, output: str, error: str = "") -> tuple[int, str]:
    """Run it with a pip-audit that answers this."""
    (folder / "answer.py").write_text(f"import sys\nsys.stdout.write({output!r})\nsys.stderr.write({error!r})\n")
    fake = folder / "pip-audit"
    # The first line of a script cannot name a path with a space in it
    fake.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(folder / 'answer.py'))}\n")
    fake.chmod(0o755)
    done = subprocess.run([sys.executable, AUDIT, fake, "dev.txt"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def answer(*packages: object) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_nothing_found(tmp_path: Path) -> None:
    assert audit(tmp_path, answer(SOUND, SOUND)) == (0, "2 of 2 releases checked, 0 vulnerable\n")


@pytest.mark.parametrize("others", [(), (SOUND,), (UNKNOWN,)])
def test_a_known_vulnerability_fails_whatever_else_there_is(tmp_path: Path, others: tuple[object, ...]) -> None:
    code, shown = audit(tmp_path, answer(VULNERABLE, *others))
    assert code == 1
    assert shown.startswith("jinja2 3.1.2: PYSEC-2024-1, fixed in 3.1.3\n")


def test_releases_that_were_not_checked_are_counted_aloud(tmp_path: Path) -> None:
    code, shown = audit(tmp_path, answer(SOUND, UNKNOWN))
    assert code == 2
    assert shown.startswith("torch: not checked (Dependency not found on PyPI")
    assert shown.endswith("1 of 2 releases checked, 0 vulnerable\n")


def test_an_empty_list_is_no_success(tmp_path: Path) -> None:
    code, shown = audit(tmp_path, answer())
    assert (code, shown.splitlines()[-1]) == (2, "it found no package to check")


def test_a_word_of_the_network_in_a_crash_is_no_excuse(tmp_path: Path) -> None:
    code, shown = audit(tmp_path, "", "KeyError: 'ReadTimeout setting missing ConnectionError'")
    assert code == 2
    assert "ReadTimeout setting missing" in shown


@pytest.mark.parametrize(
    "error",
    [
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded",
        "pip_audit._service.interface.ServiceError: 503 Server Error",
    ],
)
def test_a_service_that_is_away_is_said_and_is_no_failure(tmp_path: Path, error: str) -> None:
    code, shown = audit(tmp_path, "", error)
    assert code == 0
    assert shown.startswith("WARNING: no release was checked: ")


@pytest.mark.parametrize("output", ["", "[]", "not JSON"])
def test_any_other_failure_fails(tmp_path: Path, output: str) -> None:
    code, shown = audit(tmp_path, output, "ERROR: invalid requirements file")
    assert (code, shown.splitlines()[-1]) == (2, "ERROR: invalid requirements file")


def test_a_mirror_that_knows_no_release_is_no_advisory_service(tmp_path: Path) -> None:
    code, shown = audit(tmp_path, answer(*[UNKNOWN] * 50))
    assert (code, "WARNING: no release was checked" in shown) == (0, True)
    assert audit(tmp_path, answer(*[UNKNOWN] * 49))[0] == 2
    assert audit(tmp_path, answer(SOUND, *[UNKNOWN] * 50))[0] == 2
