"""Stored bytes decoded on a CUDA device to the bits of the host, and whole audits that agree: where there is one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.packed_checkpoint import write_packed

from benchmarks import format_samples
from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.encodings.gguf_blocks import BY_LIBRARY
from llmtrap.packed import Packed, Tiles
from llmtrap.report.document import Report
from llmtrap.spectra.backends import Decoder, cuda_device_count, select_backend
from llmtrap.spectra.value_counts import MOST_VALUES, ValueCounter

Floats = NDArray[np.floating]

pytestmark = pytest.mark.skipif(cuda_device_count() == 0, reason="no CUDA device here")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sides of up to 1280: single precision, MXFP4, FP8, BF16 and F16."""
    return write_packed(tmp_path_factory.mktemp("packed") / "model", scale=4)


@pytest.fixture(params=[name for name in ("cupy", "torch") if find_spec(name) is not None])
def library(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def decoder_of(library: str, device: str = "cuda") -> Decoder:
    decoder = select_backend(library, device).decoder
    assert decoder is not None
    return decoder


def bits(numbers: Floats, library: str) -> NDArray[np.uint32]:
    """The bits, of one NaN and of those numbers that the library does not take for zero.

    CuPy compiles its kernels so that float32 under 2⁻¹²⁶ is zero, a factor too: of those tested, which go to 128 times
    such a scale. And a device's NaN has other bits than a host's.
    """
    known = np.where(np.isnan(numbers), np.float32(np.nan), numbers)
    if library == "cupy":
        known = np.where(np.abs(known) < 128 * np.finfo(np.float32).tiny, np.float32(0), known)
    return np.asarray(known, dtype=np.float32).view(np.uint32)


@pytest.mark.parametrize("number", range(max(1, cuda_device_count())))
def test_every_format_is_decoded_to_the_bits_of_the_host(packed: Path, library: str, number: int) -> None:
    decoder = decoder_of(library, f"cuda:{number}")
    checkpoint = open_checkpoint(str(packed))
    for matrix in checkpoint.matrices:
        blocks = matrix.packed_blocks(checkpoint.source)
        assert blocks is not None
        found = np.vstack([decoder.to_host(decoder.decode(decoder.send(block))) for block in blocks])
        assert found.tobytes() == matrix.read(checkpoint.source).tobytes(), matrix.id


def test_every_published_format_is_decoded_to_the_bits_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """Codes of any bits, GGUF's blocks of any bytes included: numbers to the bit, and NaN where the host has NaN."""
    monkeypatch.setattr(format_samples, "SIDE", 512)
    decoder = decoder_of(library)
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
            np.testing.assert_array_equal(bits(found, library), bits(expected, library), err_msg=sample.label)


def test_any_byte_under_any_scale_the_smallest_and_the_largest_included(library: str) -> None:
    """6·2¹²⁷ must not be anything but infinite, nor subnormal numbers be zero where the library keeps them."""
    decoder = decoder_of(library)
    numbers = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
    pairs = np.stack([np.tile(numbers, 16), np.repeat(numbers, 16)], axis=1)
    scales = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)
    codes = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    tiles = Tiles(np.arange(256, dtype=np.uint8).reshape(-1, 1), scales, height=1, width=512)
    found = decoder.to_host(decoder.decode(decoder.send(Packed(codes, pairs, (tiles,)))))
    with np.errstate(over="ignore"):
        expected = np.tile(pairs.reshape(-1), (256, 1)) * scales[:, None]
    np.testing.assert_array_equal(bits(found, library), bits(expected, library))


def test_values_are_counted_as_on_the_host(packed: Path, library: str) -> None:
    decoder = decoder_of(library)
    checkpoint = open_checkpoint(str(packed))
    for matrix in checkpoint.matrices:
        blocks = matrix.packed_blocks(checkpoint.source)
        assert blocks is not None
        counter, expected = ValueCounter(), ValueCounter()
        for block in blocks:
            found = decoder.distinct(decoder.decode(decoder.send(block)), MOST_VALUES)
            assert found is not None
            counter.add_counted(*found)
        expected.add(matrix.read(checkpoint.source))
        assert counter.histogram is not None and expected.histogram is not None  # noqa: PT018 - narrows both
        np.testing.assert_array_equal(counter.histogram, expected.histogram)


def report_of(folder: Path, device: str, library: str = "auto", workers: int = 1) -> Report:
    checkpoint = open_checkpoint(str(folder))
    settings = AuditSettings(device=device, backend=library)
    *_, last = AuditRun(checkpoint, settings, RunOptions(workers=workers)).events()
    assert isinstance(last, Finished)
    assert last.report is not None
    return last.report


@pytest.mark.parametrize("workers", [1, 2])
def test_a_whole_audit_agrees_with_the_cpu(packed: Path, library: str, workers: int) -> None:
    """In this process, and with two that share the device."""
    here, there = report_of(packed, "cpu"), report_of(packed, "cuda", library, workers)
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
