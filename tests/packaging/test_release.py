"""What a release publishes: the archives hold what they should, and the files around them agree with one another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

import llmtrap

ROOT = Path(__file__).parents[2]
CHECK = ROOT / ".ci" / "release_check.py"
UNKNOWN_OWNER = "the repository's owner is not known: put it in place of OWNER (docs/release.md)"
SOURCES = ("docs", "src", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md",
           "pyproject.toml", "reports/README.md", "tests/conftest.py")  # fmt: skip


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives, built from a copy of the project; nothing is fetched."""
    project = tmp_path_factory.mktemp("release") / "project"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, project / name)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--target", "wheel"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return project / "dist"


def said(dist: Path) -> list[str]:
    """What the check says of these archives."""
    done = subprocess.run([sys.executable, CHECK, dist], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert done.returncode == (0 if lines == ["ready to publish"] else 1)
    return lines


def test_what_would_be_published_is_in_order(dist: Path) -> None:
    known = "github.com/OWNER/" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert said(dist) == (["ready to publish"] if known else [UNKNOWN_OWNER])


def test_an_archive_with_too_much_in_it_is_refused(dist: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dist"
    shutil.copytree(dist, copy)
    (archive,) = copy.glob("*.tar.gz")
    stem = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as held:
        held.extractall(tmp_path, filter="data")
    (tmp_path / stem / "reports").mkdir()
    (tmp_path / stem / "reports" / "page.html").write_bytes(b"x")
    (tmp_path / stem / "SECURITY.md").unlink()
    with tarfile.open(archive, "w:gz") as made:
        made.add(tmp_path / stem, stem)
    assert f"{archive.name} holds reports/page.html" in said(copy)
    assert f"{archive.name} has no SECURITY.md" in said(copy)


def test_a_forgotten_archive_of_another_version_is_refused(dist: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dist"
    shutil.copytree(dist, copy)
    (copy / "llmtrap-0.0.1.tar.gz").write_bytes(b"")
    (line,) = said(copy)
    assert "llmtrap-0.0.1.tar.gz" in line


def test_the_version_is_stated_once() -> None:
    assert f'"{llmtrap.__version__}"' not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == llmtrap.__version__


def test_the_hooks_of_this_repository_lint_with_the_locked_release() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (revision,) = (repo["rev"] for repo in hooks["repos"] if repo["repo"].endswith("ruff-pre-commit"))
    locked = re.findall(r"^ruff==(.+)$", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    assert [revision.removeprefix("v")] == locked


def test_the_image_runs_as_nobody_special_and_is_made_of_what_the_context_has() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_ask_for_no_more_than_they_need(name: str) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    writing = {job: sorted(what for what, how in (described.get("permissions") or {}).items() if how == "write")
               for job, described in workflow["jobs"].items()}  # fmt: skip
    granted = {job: what for job, what in writing.items() if what}
    release = {"build": ["attestations", "id-token"], "publish": ["id-token"]}
    assert granted == (release if name == "release" else {})
    assert all("timeout-minutes" in described for described in workflow["jobs"].values())
