"""Hold what a release would publish against what is allowed: `python .ci/release_check.py dist`.

The size and contents of the source archive and the wheel, one version everywhere, and a repository with an owner.
What is wrong is listed, and the exit code is 1.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# 1.1 million are the weights of `audit --demo grokking`, which do not compress, 0.4 million the page's plot library.
MOST_BYTES = 2_400_000
NEVER = ("reports/", "tests/", "benchmarks/", "studies/", ".ci/", ".github/", "build/")
ALWAYS = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml",
          "docs/definitions.md", "src/llmtrap/__init__.py", "src/llmtrap/py.typed")  # fmt: skip


def problems(dist: Path) -> Iterator[str]:
    """Everything that stands against publishing the archives of this folder."""
    version = re.search(r'__version__ = "(.+)"', (ROOT / "src" / "llmtrap" / "version.py").read_text(encoding="utf-8"))
    assert version is not None, "src/llmtrap/version.py states no version"  # noqa: S101 - the file is this project's
    stem = f"llmtrap-{version[1]}"
    names = sorted(path.name for path in dist.iterdir())
    expected = [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]
    if names != expected:
        yield f"{dist} holds {names}, not {expected}"
        return
    yield from _source(dist / f"{stem}.tar.gz", stem)
    yield from _wheel(dist / f"{stem}-py3-none-any.whl")
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    if f"\nversion: {version[1]}\n" not in cited:
        yield f"CITATION.cff does not cite version {version[1]}"


def _source(archive: Path, stem: str) -> Iterator[str]:
    if archive.stat().st_size > MOST_BYTES:
        yield f"{archive.name} has {archive.stat().st_size:,} bytes, over {MOST_BYTES:,}"
    with tarfile.open(archive) as opened:
        held = {name.removeprefix(f"{stem}/") for name in opened.getnames()}
    yield from (f"{archive.name} has no {name}" for name in ALWAYS if name not in held)
    yield from (f"{archive.name} holds {name}" for name in sorted(held) if name.startswith(NEVER))


def _wheel(archive: Path) -> Iterator[str]:
    with zipfile.ZipFile(archive) as opened:
        held = opened.namelist()
        (metadata,) = (opened.read(name).decode() for name in held if name.endswith(".dist-info/METADATA"))
    yield from (f"{archive.name} holds {name}" for name in held if not name.startswith(("llmtrap/", "llmtrap-")))
    if "llmtrap/py.typed" not in held:
        yield f"{archive.name} has no llmtrap/py.typed"
    if "github.com/OWNER/" in metadata:
        yield "the repository's owner is not known: put it in place of OWNER (docs/release.md)"
    if relative := re.findall(r"(?:\]\(|src(?:set)?=\")((?!https?://|#)[^)\"]+)", metadata):
        yield f"the README has links that lead nowhere on the package index: {', '.join(relative)}"


def main(dist: Path) -> int:
    """Print every problem; returns the exit code."""
    found = list(problems(dist))
    for problem in found:
        print(problem)
    if not found:
        print("ready to publish")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
