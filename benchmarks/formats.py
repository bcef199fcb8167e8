"""How fast each storage format is read and decoded on one core, and the table of formats in docs/targets.md.

    python -m benchmarks.formats [--rounds 5] [--write]

Every format's sample of 4 million weights is read from the page cache and decoded, all of them in turn each round; the
median of the rounds counts, in seconds of the processor. `--write` puts the table into docs/targets.md and figures of
every format into docs/formats.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.format_samples import samples
from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.checkpoint.encodings import ENCODINGS

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- the table of formats: python -m benchmarks.formats --write -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class FormatSpeed:
    """What reading one format costs: `bytes` stored and `weights` decoded, in processor `seconds` of every round."""

    encoding: str
    label: str
    bytes: int
    weights: int
    seconds: tuple[float, ...]

    @property
    def bytes_per_second(self) -> float:
        """Bytes as stored."""
        return self.bytes / statistics.median(self.seconds)

    @property
    def weights_per_second(self) -> float:
        """Weights as decoded."""
        return self.weights / statistics.median(self.seconds)


def measure_formats(rounds: int) -> list[FormatSpeed]:
    """Make every sample, and decode all of them in turn."""
    with tempfile.TemporaryDirectory(prefix="llmtrap-formats-") as scratch, contextlib.ExitStack() as open_ones:
        opened: dict[str, tuple[str, str, Checkpoint]] = {}
        for number, sample in enumerate(samples()):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            sample.write(folder)
            checkpoint = open_checkpoint(str(folder))
            open_ones.callback(checkpoint.source.close)
            opened[str(number)] = sample.encoding, sample.label, checkpoint
        seconds = _processor_seconds({key: checkpoint for key, (_, _, checkpoint) in opened.items()}, rounds)
        return [
            FormatSpeed(encoding, label, *_sizes(checkpoint), seconds[key])
            for key, (encoding, label, checkpoint) in opened.items()
        ]


def formats_document(speeds: Sequence[FormatSpeed]) -> list[dict[str, Any]]:
    """What is written to the results."""
    return [
        asdict(speed) | {"bytes_per_second": speed.bytes_per_second, "weights_per_second": speed.weights_per_second}
        for speed in speeds
    ]


def formats_table(speeds: Sequence[FormatSpeed] | None = None) -> Iterator[str]:
    """The table of docs/targets.md, a row an encoding, plain ones first; without rates where nothing was measured."""
    yield "| format | what is read | bytes/s | weights/s |"
    yield "| --- | --- | --- | --- |"
    for encoding in reversed(ENCODINGS):
        mine = [speed for speed in speeds or () if speed.encoding == encoding.name]
        stored = _range([speed.bytes_per_second / 1e6 for speed in mine], "MB")
        decoded = _range([speed.weights_per_second / 1e6 for speed in mine], "M")
        yield f"| {encoding.name} | {encoding.reads} | {stored} | {decoded} |"


def details_table(speeds: Sequence[FormatSpeed]) -> Iterator[str]:
    """A row a format, for docs/formats.md."""
    yield "| format | of it | bits a weight | MB/s as stored | million weights/s |"
    yield "| --- | --- | --- | --- | --- |"
    for speed in speeds:
        bits = 8 * speed.bytes / speed.weights
        rates = f"{speed.bytes_per_second / 1e6:,.0f} | {speed.weights_per_second / 1e6:,.0f}"
        yield f"| {speed.encoding} | {speed.label} | {bits:.3g} | {rates} |"


def put_table(text: str, lines: Iterator[str]) -> str:
    """The text with what stands between the two marks replaced."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"no place for the table: {BEGIN} … {END}")
    return before + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + after


def _processor_seconds(opened: Mapping[str, Checkpoint], rounds: int) -> dict[str, tuple[float, ...]]:
    """Of the processor, not of the clock: what else the machine does costs a core's time, not this one's work."""
    seconds: dict[str, list[float]] = {key: [] for key in opened}
    for number in range(rounds + 1):
        for key, checkpoint in opened.items():
            began = time.process_time()
            for matrix in checkpoint.matrices:
                for _ in matrix.blocks(checkpoint.source):
                    pass
            if number:
                seconds[key].append(time.process_time() - began)
    return {key: tuple(values) for key, values in seconds.items()}


def _sizes(checkpoint: Checkpoint) -> tuple[int, int]:
    """Bytes as stored and weights of all matrices."""
    parts = {part.name: part for matrix in checkpoint.matrices for part in matrix.stored.parts}
    stored = sum(span.size for part in parts.values() for span in part.spans)
    return stored, sum(matrix.size for matrix in checkpoint.matrices)


def _range(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return f"{low} {unit}" if low == high else f"{low} – {high} {unit}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each format; medians are taken of them")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/targets.md and docs/formats.md")
    options = parser.parse_args(arguments)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    with threadpool_limits(1):
        speeds = measure_formats(options.rounds)
    print("\n".join(details_table(speeds)))
    if options.write:
        for name, lines in (("docs/targets.md", formats_table(speeds)), ("docs/formats.md", details_table(speeds))):
            path = ROOT / name
            path.write_text(put_table(path.read_text(encoding="utf-8"), lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
