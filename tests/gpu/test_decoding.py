"""Stored bytes decoded on a CUDA device to the bits of the host, and whole audits that agree: where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.packed_checkpoint import write_packed

from benchmarks import format_samples
from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.encodings.gguf_blocks import BY_LIBRARY
from llmtrap.packed import Packed, Tiles
from llmtrap.report.document import Report
from llmtrap.spectra.backends import cuda_device_count, select_backend

pytestmark = pytest.mark.skipif(cuda_device_count() == 0, reason="no CUDA device here")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sides of up to 1280: single precision, MXFP4, FP8, BF16 and F16."""
    return write_packed(tmp_path_factory.mktemp("packed") / "model", scale=4)


def devices() -> list[str]:
    return [f"cuda:{number}" for number in range(max(1, cuda_device_count()))]


@pytest.mark.parametrize("device", devices())
def test_every_format_is_decoded_to_the_bits_of_the_host(packed: Path, device: str) -> None:
    decoder = select_backend("auto", device).decoder
    assert decoder is not None
    checkpoint = open_checkpoint(str(packed))
    for matrix in checkpoint.matrices:
        blocks = matrix.packed_blocks(checkpoint.source)
        assert blocks is not None
        found = np.vstack([decoder.to_host(decoder.decode(decoder.send(block))) for block in blocks])
        assert found.tobytes() == matrix.read(checkpoint.source).tobytes(), matrix.id


def test_every_published_format_is_decoded_to_the_bits_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes of any bits, GGUF's blocks of any bytes included: numbers to the bit, and NaN where the host has NaN."""
    monkeypatch.setattr(format_samples, "SIDE", 512)
    decoder = select_backend("auto", "cuda").decoder
    assert decoder is not None
    for number, sample in enumerate(format_samples.samples()):
        folder = tmp_path / str(number)
        folder.mkdir()
        sample.write(folder)
        checkpoint = open_checkpoint(str(folder))
        for matrix in checkpoint.matrices:
            blocks = matrix.packed_blocks(checkpoint.source)
            if blocks is None:
                assert sample.label in ("F32", *BY_LIBRARY), sample.label
                continue
            found = np.vstack([decoder.to_host(decoder.decode(decoder.send(block))) for block in blocks])
            expected = matrix.read(checkpoint.source)
            nan = np.isnan(expected)
            np.testing.assert_array_equal(np.isnan(found), nan, err_msg=sample.label)
            same = found.view(np.uint32)[~nan] == expected.view(np.uint32)[~nan]
            assert same.all(), sample.label


def test_any_byte_under_any_scale_the_smallest_and_the_largest_included() -> None:
    """Subnormal numbers must not be flushed to zero, nor 6·2¹²⁷ be anything but infinite."""
    decoder = select_backend("auto", "cuda").decoder
    assert decoder is not None
    numbers = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
    pairs = np.stack([np.tile(numbers, 16), np.repeat(numbers, 16)], axis=1)
    scales = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)
    codes = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    tiles = Tiles(np.arange(256, dtype=np.uint8).reshape(-1, 1), scales, height=1, width=512)
    found = decoder.to_host(decoder.decode(decoder.send(Packed(codes, pairs, (tiles,)))))
    with np.errstate(over="ignore"):
        expected = np.tile(pairs.reshape(-1), (256, 1)) * scales[:, None]
    assert np.isnan(found[255]).all()
    assert found[:255].tobytes() == expected[:255].tobytes()


def report_of(folder: Path, device: str) -> Report:
    checkpoint = open_checkpoint(str(folder))
    *_, last = AuditRun(checkpoint, AuditSettings(device=device), RunOptions(workers=1)).events()
    assert isinstance(last, Finished)
    assert last.report is not None
    return last.report


def test_a_whole_audit_agrees_with_the_cpu(packed: Path) -> None:
    here, there = report_of(packed, "cpu"), report_of(packed, "cuda")
    assert (there.coverage.audited, there.coverage.failed) == (here.coverage.audited, ())
    for one, other in zip(there.matrices, here.matrices, strict=True):
        assert one.alpha is not None and other.alpha is not None  # noqa: PT018 - narrows both
        assert one.traps is not None and other.traps is not None  # noqa: PT018
        assert one.alpha.value == pytest.approx(other.alpha.value, rel=1e-4)
        assert one.traps.kurtosis == pytest.approx(other.traps.kurtosis, rel=1e-4)
        assert (one.traps.method, one.traps.count) == (other.traps.method, other.traps.count)
        if other.traps.top_z is not None:
            assert one.traps.top_z == pytest.approx(other.traps.top_z, abs=0.05, rel=1e-5)
        causes = [trap.cause for trap in other.traps.found]
        assert [(t.cause.kind, t.cause.row, t.cause.column) for t in one.traps.found] == [
            (cause.kind, cause.row, cause.column) for cause in causes
        ]
