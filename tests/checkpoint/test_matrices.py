"""Reading by blocks: the same entries for every block size and selection, in bounded memory."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tests.support.raw_safetensors import sparse

from llmtrap.checkpoint import Stripes, WeightMatrix, open_checkpoint
from llmtrap.checkpoint.sources import ByteRange, Bytes, LocalSource

ROWS, COLUMNS = 48, 30


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalSource, WeightMatrix, np.ndarray]:
    folder = tmp_path_factory.mktemp("stack")
    values = np.arange(2 * ROWS * COLUMNS, dtype=np.float32).reshape(2, ROWS, COLUMNS)
    save_file({"layers.3.experts.w": values}, folder / "model.safetensors")
    checkpoint = open_checkpoint(str(folder))
    return LocalSource(folder), checkpoint.matrices[1], values[1]


@st.composite
def stripes(draw: st.DrawFn, size: int) -> Stripes:
    """Any selection that fits the axis."""
    block = draw(st.integers(1, size))
    stride = draw(st.integers(block, size))
    offset = draw(st.integers(0, size - block))
    blocks = draw(st.integers(1, (size - offset - block) // stride + 1))
    return Stripes(offset, stride, block, blocks * block)


class Recording(LocalSource):
    """A local source that keeps what was opened."""

    opened: list[ByteRange]

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        self.opened.append(span)
        with super().open(span) as data:
            yield data

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        self.opened.append(span)
        super().read_into(span, out)


@given(data=st.data(), max_entries=st.integers(1, 2000))
@settings(
    max_examples=2 * settings.default.max_examples,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_selection_in_blocks_of_any_size_is_that_part_of_the_matrix(
    stack: tuple[LocalSource, WeightMatrix, np.ndarray], data: st.DataObject, max_entries: int
) -> None:
    source, whole, values = stack
    rows = data.draw(st.none() | stripes(ROWS))
    columns = data.draw(st.none() | stripes(COLUMNS))
    expected = values
    if rows is not None:
        expected = expected[rows.indices()]
        assert rows.end == rows.indices()[-1] + 1
        assert np.concatenate([np.arange(*run) for run in rows.runs()]).tolist() == rows.indices().tolist()
    if columns is not None:
        expected = expected[:, columns.indices()]
    matrix = replace(whole, rows=rows, columns=columns, shape=expected.shape)
    blocks = [block.copy() for block in matrix.blocks(source, max_entries)]
    np.testing.assert_array_equal(np.vstack(blocks), expected)
    assert all(block.size <= max(max_entries, COLUMNS) for block in blocks)
    assert all(block.flags.c_contiguous for block in matrix.blocks(source, max_entries))


@pytest.mark.parametrize("max_entries", [1, 100, 1 << 22])
def test_spans_are_exactly_what_blocks_opens(
    stack: tuple[LocalSource, WeightMatrix, np.ndarray], max_entries: int
) -> None:
    source, matrix, _ = stack
    recording = Recording(source.identity.name)
    recording.opened = []
    for rows in (None, Stripes(1, 2, 1, ROWS // 2), Stripes(0, 16, 16, 16), Stripes(2, 20, 18, 36)):
        part = replace(matrix, rows=rows, shape=(ROWS if rows is None else rows.count, COLUMNS))
        recording.opened.clear()
        assert sum(len(block) for block in part.blocks(recording, max_entries)) == part.shape[0]
        assert tuple(recording.opened) == part.spans(max_entries)


def test_a_matrix_travels_alone_and_is_read_the_same(stack: tuple[LocalSource, WeightMatrix, np.ndarray]) -> None:
    source, matrix, values = stack
    carried = pickle.dumps((source, matrix))
    other_source, other = pickle.loads(carried)  # noqa: S301
    np.testing.assert_array_equal(other.read(other_source), values)
    assert other == matrix
    assert len(carried) < 3000


def test_a_part_of_a_fused_matrix_has_no_histogram(stack: tuple[LocalSource, WeightMatrix, np.ndarray]) -> None:
    source, matrix, _ = stack
    assert replace(matrix, rows=Stripes(0, 2, 1, ROWS // 2)).histogram(source) is None


_READ_ALL = """
import sys
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.encodings import plain

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

checkpoint = open_checkpoint(sys.argv[1])
(matrix,) = checkpoint.matrices
assert matrix.shape == (300000, 1024)
before, peak, rows = anonymous(), 0, 0
for block in matrix.blocks(checkpoint.source):
    rows += len(block)
    peak = max(peak, anonymous())
values, counts = matrix.histogram(checkpoint.source)
assert (rows, values.tolist(), counts.tolist()) == (300000, [0.0], [300000 * 1024])
print(max(peak, anonymous()) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_tall_embedding_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """A 614 MB tensor, of zeros that take no disk: decoded it would be 1.2 GB."""
    sparse(tmp_path / "model.safetensors", {"model.embed_tokens.weight": ("BF16", (300000, 1024))})
    run: Any = subprocess.run(
        [sys.executable, "-c", _READ_ALL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 60_000, f"{run.stdout} kB of anonymous memory over what was there before"


def test_planning_needs_no_memory_for_weights(tmp_path: Path) -> None:
    sparse(
        tmp_path / "model.safetensors",
        {f"model.layers.{k}.mlp.up_proj.weight": ("F32", (1 << 18, 1 << 12)) for k in range(64)},
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(open_checkpoint(str(tmp_path)).matrices) == 64
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
