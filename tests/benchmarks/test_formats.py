"""The table of formats: on its page as the encodings have it, and every format in it has a sample that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.formats import BEGIN, END, formats_table, put_table

from benchmarks import format_samples
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.encodings import ENCODINGS, Encoding
from llmtrap.checkpoint.encodings.gguf_blocks import BY_LIBRARY
from llmtrap.checkpoint.tensors import Catalogue

PAGE = Path(__file__).parents[2] / "docs" / "targets.md"


def claimed_by(catalogue: Catalogue) -> Encoding:
    """The encoding that takes the sample's matrix."""
    free = dict(catalogue.tensors)
    return next(encoding for encoding in ENCODINGS if encoding.claim(catalogue, free))


def test_the_readme_has_a_row_of_every_encoding_as_the_encoding_says() -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    assert [row.split("|")[1:3] for row in shown] == [row.split("|")[1:3] for row in formats_table()]
    assert all(cell.strip() for row in shown[2:] for cell in row.split("|")[3:5]), "an encoding was never measured"


def test_every_encoding_has_a_sample_that_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_samples, "SIDE", 256)
    seen = set()
    for number, sample in enumerate(format_samples.samples()):
        folder = tmp_path / str(number)
        folder.mkdir()
        sample.write(folder)
        checkpoint = open_checkpoint(str(folder))
        assert claimed_by(checkpoint.catalogue).name == sample.encoding, sample.label
        (matrix,) = checkpoint.matrices
        assert matrix.shape == (256, 256)
        if sample.label not in BY_LIBRARY:
            assert matrix.read(checkpoint.source).dtype == np.float32
        seen.add(sample.encoding)
    assert seen == {encoding.name for encoding in ENCODINGS}


def test_a_text_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table"):
        put_table("nothing here", iter(()))
