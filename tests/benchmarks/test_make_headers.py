"""Headers without weights: the published sizes, every matrix named, and next to nothing on the disk."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from benchmarks.make_headers import MODELS, make_headers

from llmtrap.checkpoint import LocalSource
from llmtrap.checkpoint.parts import open_parts


def test_the_sizes_are_those_published() -> None:
    parameters = {name: sum(math.prod(spec.shape) for spec in model.tensors()) for name, model in MODELS.items()}

    assert parameters["llama-3-70b"] == 70_553_706_496
    assert 1.02e12 < parameters["mixture-1t"] < 1.03e12


def test_the_dense_model_opens_whole_and_takes_no_disk(tmp_path: Path) -> None:
    make_headers(tmp_path / "model", MODELS["llama-3-70b"])

    checkpoint = open_parts(LocalSource(tmp_path / "model"))

    assert len(checkpoint.matrices) == 80 * 7 + 2
    assert checkpoint.unknown == ()
    assert {item.kind for item in checkpoint.skipped} == {"one_dimensional"}
    assert sum(file.stat().st_blocks * 512 for file in (tmp_path / "model").iterdir()) < 4 << 20


def test_the_mixture_has_all_its_experts() -> None:
    roles = Counter(spec.name.split(".")[5] for spec in MODELS["mixture-1t"].tensors() if ".experts." in spec.name)

    assert set(roles) == {str(expert) for expert in range(384)}
    assert set(roles.values()) == {60 * 3}
