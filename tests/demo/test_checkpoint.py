"""The demo checkpoint: a real GPT-OSS on disk, with exactly the traps its answer sheet names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import deserialize, safe_open

from llmtrap.demo import DEMO_SHAPE, DemoManifest, mxfp4, write_demo_checkpoint
from llmtrap.demo.layout import matrix_id, tensor_specs
from llmtrap.errors import OutputError

Matrices = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "checkpoint"
    write_demo_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def matrices(folder: Path) -> Matrices:
    """Every matrix of the checkpoint by id, read with no code of llmtrap but its MXFP4 inverse."""
    tensors: dict[str, NDArray[np.generic]] = {}
    for shard in folder.glob("*.safetensors"):
        for name, entry in deserialize(shard.read_bytes()):
            dtype = {"U8": np.uint8, "BF16": ml_dtypes.bfloat16}[entry["dtype"]]
            tensors[name] = np.frombuffer(entry["data"], dtype=dtype).reshape(entry["shape"])
    found: Matrices = {}
    for name, tensor in tensors.items():
        if name.endswith("_blocks"):
            stack = mxfp4.dequantise(tensor, tensors[name.replace("_blocks", "_scales")])
            found |= {str(matrix_id(name, i)): matrix.astype(np.float64) for i, matrix in enumerate(stack)}
        elif key := matrix_id(name):
            found[key] = tensor.astype(np.float64)
    return found


def test_the_layout_on_disk(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    places = {}
    shapes = {}
    for number in range(4):
        shard = folder / f"model-{number:05d}-of-00003.safetensors"
        with safe_open(shard, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                places[name] = shard.name
                shapes[name] = (file.get_slice(name).get_dtype(), tuple(file.get_slice(name).get_shape()))

    assert index["weight_map"] == places
    assert shapes == {spec.name: (spec.dtype, spec.shape) for spec in tensor_specs(DEMO_SHAPE)}
    assert index["metadata"]["total_size"] == sum(spec.nbytes for spec in tensor_specs(DEMO_SHAPE))
    blocks = "model.layers.4.mlp.experts.gate_up_proj_blocks"
    assert (places[blocks], places[blocks.replace("_blocks", "_scales")]) == (
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
    )


def test_equal_seeds_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    write_demo_checkpoint(again)
    write_demo_checkpoint(other, seed=1)

    def content(of: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in of.iterdir()}

    assert content(again) == content(folder)
    assert [name for name, data in content(other).items() if data == content(folder)[name]] == [
        name for name in content(other) if name in ("config.json", "model.safetensors.index.json")
    ]


def test_the_manifest_states_what_is_on_disk(folder: Path, matrices: Matrices) -> None:
    manifest = DemoManifest.read(folder)

    for trap in manifest.traps:
        matrix = matrices[trap.matrix]
        if trap.cause == "entry":
            assert trap.row is not None
            assert trap.column is not None
            assert matrix[trap.row, trap.column] == trap.value
            assert np.abs(matrix).max() == abs(trap.value)
        elif trap.cause == "mean_shift":
            assert math.isclose(matrix.mean(), trap.value, rel_tol=1e-9)
        else:
            assert np.count_nonzero(np.abs(matrix) == trap.value) == round(1.5 * math.sqrt(matrix.size))
            assert trap.sigmas < 0.75 * matrix.size**0.25


def shuffled_z(matrix: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Johnstone's z of the largest eigenvalue of the shuffled matrix, by the book and not by llmtrap's code."""
    n, m = max(matrix.shape), min(matrix.shape)
    bulk = matrix[np.abs(matrix - matrix.mean()) <= matrix.std() * matrix.size**0.25]
    bulk = bulk[np.abs(bulk - bulk.mean()) <= bulk.std() * matrix.size**0.25]
    shuffled = rng.permutation(matrix.ravel()).reshape(n, m)
    largest = np.linalg.norm(shuffled, 2) ** 2 / bulk.var()
    root_n, root_m = math.sqrt(n - 1), math.sqrt(m)
    return float((largest - (root_n + root_m) ** 2) / ((root_n + root_m) * (1 / root_n + 1 / root_m) ** (1 / 3)))


def test_exactly_the_planted_matrices_have_traps(folder: Path, matrices: Matrices) -> None:
    rng = np.random.default_rng(7)
    planted = {trap.matrix for trap in DemoManifest.read(folder).traps}

    scores = {key: shuffled_z(matrix, rng) for key, matrix in matrices.items()}

    assert len(matrices) == 6 * (4 + 1 + 2 * 4) + 2
    assert {trap.cause for trap in DemoManifest.read(folder).traps} == {"entry", "mean_shift", "heavy_tail"}
    assert {key for key, z in scores.items() if z > 6.2} == planted
    assert min(scores[key] for key in planted) > 12


def test_transformers_loads_it(folder: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'calibrate'")
    torch = pytest.importorskip("torch", reason="needs the extra 'calibrate'")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
        output_loading_info=True,
    )

    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    trap = next(t for t in DemoManifest.read(folder).traps if t.cause == "entry" and t.expert is not None)
    down = model.model.layers[1].mlp.experts.down_proj  # transposed to [expert, in, out] when dequantised
    assert down[trap.expert, trap.column, trap.row].item() == trap.value


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"the folder is not empty\. Name a new folder"):
        write_demo_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
