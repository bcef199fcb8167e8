"""The places that a command chooses by itself are not led astray by links in the folder it is run in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support import documents
from tests.support.small_checkpoint import write_small

from llmtrap.cli.report_folder import default_report_folder
from llmtrap.errors import OutputError
from llmtrap.gate.template import write_template
from llmtrap.report.html import write_index
from llmtrap.report.json import write_json

PRECIOUS = "# precious\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".profile").write_text(PRECIOUS)
    return home / ".profile"


def unharmed(victim: Path) -> bool:
    return victim.read_text() == PRECIOUS and [path.name for path in victim.parent.iterdir()] == [".profile"]


def test_an_audit_s_own_place_is_not_led_astray(invoke: Any, tmp_path: Path, victim: Path) -> None:
    small = write_small(tmp_path / "small", layers=1)
    audit = ("audit", small, "--workers", "1", "--traps", "certify", "--no-alpha", "--journal", tmp_path / "j")
    folder = default_report_folder(str(small), "folder")
    folder = folder.with_name(f"{folder.name}_no-alpha_certify")
    folder.mkdir(parents=True)
    for output in ("report.json", "report.html", "report.md"):
        (folder / output).symlink_to(victim)
        result = invoke(*audit)
        assert result.exit_code == 2
        assert f"{folder / output}: a part of this path is a link" in result.stderr
        (folder / output).unlink()
    folder.rename("llmtrap-reports/elsewhere")
    folder.symlink_to(victim.parent)
    assert invoke(*audit).exit_code == 2
    assert unharmed(victim)
    # The same place typed by the user is the user's own choice
    assert invoke(*audit, "--json", folder / "report.json").exit_code == 0
    assert (victim.parent / "report.json").exists()


def test_the_index_the_policy_and_the_demo_are_not_led_astray(invoke: Any, tmp_path: Path, victim: Path) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    write_json(documents.clean(), reports / "a.json")
    (reports / "index.html").symlink_to(victim)
    with pytest.raises(OutputError, match="link"):
        write_index(reports)
    (reports / "llmtrap.toml").symlink_to(victim.parent / "new")
    with pytest.raises(OutputError, match="already"):
        write_template(reports)
    small = write_small(tmp_path / "run", layers=1)
    watched = default_report_folder(str(small), "folder")
    watched.mkdir(parents=True)
    (watched / "trajectory.json").symlink_to(victim)
    done = invoke("watch", small, "--once")
    assert done.exit_code == 2
    assert "link" in done.stderr
    Path("llmtrap-demo").symlink_to(victim.parent)
    assert invoke("audit", "--demo").exit_code == 2
    assert unharmed(victim)
