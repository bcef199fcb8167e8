"""Run a sample of a module's mutants against the tests that mirror it, on a copy of the tree.

    pip install cosmic-ray
    python -m studies.mutation spectra/power_law.py [--sample 60] [--seed 13] [--timeout 120] [--tests tests/spectra/…]

Prints how many were caught and a difference for each that survived. docs/mutation.md has the scores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "studies", "pyproject.toml")
TIMEOUT = 120.0

# What mirrors a module beyond tests/PACKAGE/test_MODULE.py.
FURTHER = {
    "spectra/power_law.py": ("tests/spectra/test_distinct.py",),
    "spectra/prediction.py": ("tests/spectra/test_doubt.py",),
    "spectra/traps.py": ("tests/spectra/test_doubt.py",),
    "spectra/shuffle.py": ("tests/spectra/test_same_draws.py",),
    "spectra/esd.py": ("tests/spectra/test_distinct.py",),
    "gate/update.py": ("tests/gate/test_pair_task.py",),
    "gate/kept.py": ("tests/gate/test_pair_task.py",),
    "gate/side_by_side.py": ("tests/gate/test_pair_task.py",),
}


def main(arguments: list[str] | None = None) -> int:
    """Make the copy, the session and its sample, run it, and print what survived."""
    parser = argparse.ArgumentParser(prog="python -m studies.mutation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module", help="a file under src/llmtrap, such as spectra/power_law.py")
    parser.add_argument("--sample", type=int, default=60, help="mutants to run, drawn at random; 0 for all")
    parser.add_argument("--seed", type=int, default=13, help="of the sample")
    parser.add_argument("--tests", nargs="*", help="tests to run instead of those that mirror the module")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds after which a mutant counts as caught")
    options = parser.parse_args(arguments)
    tests = options.tests or tests_of(options.module)
    with tempfile.TemporaryDirectory(prefix="llmtrap-mutants-") as scratch:
        folder = Path(scratch)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        (folder / "session.toml").write_text(settings(options.module, tests, options.timeout), encoding="utf-8")
        run(folder, "init", "session.toml", "session.sqlite")
        total, kept = draw_sample(folder / "session.sqlite", options.sample, options.seed)
        run(folder, "exec", "session.toml", "session.sqlite")
        print(f"{options.module}: {kept} of {total} mutants, tests {' '.join(tests)}")
        report(folder / "session.sqlite")
    return 0


def tests_of(module: str) -> list[str]:
    """The tests that mirror a module."""
    package, _, name = module.rpartition("/")
    mirror = Path("tests", package, f"test_{name}")
    found = [str(mirror)] if (ROOT / mirror).is_file() else []
    return [*found, *FURTHER.get(module, ())] or [f"tests/{package}"]


def settings(module: str, tests: list[str], timeout: float) -> str:
    """The session's configuration."""
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {' '.join(tests)}"
    return (
        f'[cosmic-ray]\nmodule-path = ["src/llmtrap/{module}"]\ntimeout = {timeout}\nexcluded-modules = []\n'
        f'test-command = "{command}"\n\n[cosmic-ray.distributor]\nname = "local"\n'
    )


def run(folder: Path, *words: str) -> None:
    """Run cosmic-ray in the copy, which comes before the installed package.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *words], cwd=folder, env=environment, check=True)


def draw_sample(session: Path, size: int, seed: int) -> tuple[int, int]:
    """Keep a random sample of the session's mutants; how many there were, and are."""
    with closing(sqlite3.connect(session)) as database:
        jobs = [row[0] for row in database.execute("select job_id from mutation_specs order by module_path, rowid")]
        kept = np.random.default_rng(seed).permutation(len(jobs))[: size or None]
        dropped = [(jobs[place],) for place in set(range(len(jobs))) - set(kept.tolist())]
        for table in ("mutation_specs", "work_items"):
            database.executemany(f"delete from {table} where job_id = ?", dropped)  # noqa: S608 - our own two names
        database.commit()
    return len(jobs), len(kept)


def report(session: Path) -> None:
    """Print the score, and the differences that no test noticed."""
    with closing(sqlite3.connect(session)) as database:
        rows = list(database.execute("select test_outcome, diff from work_results"))
    caught = sum(str(outcome).upper().endswith("KILLED") for outcome, _ in rows)
    print(f"caught {caught} of {len(rows)}")
    for outcome, difference in rows:
        if not str(outcome).upper().endswith("KILLED"):
            print("\n".join(line for line in (difference or "").splitlines() if line[:1] in "+-"))


if __name__ == "__main__":
    raise SystemExit(main())
