"""Which layers a layer's number counts, and what matrices of one kind have in common."""

from __future__ import annotations

import pytest
from tests.support import documents
from tests.support.documents import matrix

from llmtrap.report.facts import block, is_uncertain, state, tally


@pytest.mark.parametrize(
    ("id_", "part", "expected"),
    [
        ("layers.3.mlp.up", "text", "text"),
        ("embedding", "text", "text"),
        ("vision.layers.3.mlp.up", "vision", "vision"),
        ("vision.sam_model.layers.3.attention.qkv", "vision", "vision.sam_model"),
        ("vision.patch_embedding", "vision", "vision"),
        ("text_encoder/layers.0.attention.q", "text", "text_encoder"),
        ("unet/diffusion.down_blocks.layers.1.attention.q", "diffusion", "unet/diffusion.down_blocks"),
        ("encoder.layers.0.attention.q", "text", "encoder"),  # of a report without parts
        ("projector.layers_norm.2", "projector", "projector"),
    ],
)
def test_a_block_is_the_part_or_the_tower_that_the_id_begins_with(id_: str, part: str, expected: str) -> None:
    assert block(matrix(id_).model_copy(update={"part": part})) == expected


@pytest.mark.parametrize(
    ("centred", "low", "high", "centred_low", "centred_high", "expected", "uncertain"),
    [
        (2, 1, 3, 1, 3, "trapped", False),
        (2, 1, 3, 0, 3, "edge", True),
        (0, 0, 1, 0, 1, "edge", True),
        (1, 1, 2, None, None, "trapped", False),  # an older report: every shuffle showed a trap
        (1, 0, 2, None, None, "edge", True),
        (0, 0, 0, 0, 0, "free", False),
    ],
)
def test_trapped_is_what_every_shuffle_shows(
    centred: int,
    low: int,
    high: int,
    centred_low: int | None,
    centred_high: int | None,
    expected: str,
    uncertain: bool,
) -> None:
    found = documents.matrix("a", method="measured", causes=[("entry", 1.2)] * centred, low=low, high=high)
    assert found.traps is not None
    update = {"centred_low": centred_low, "centred_high": centred_high}
    if not high:
        update |= {"top_z_low": -2.0, "top_z_high": -1.0}
    found = found.model_copy(update={"traps": found.traps.model_copy(update=update)})
    assert (state(found), is_uncertain(found)) == (expected, uncertain)
    assert (tally([found]).trapped, tally([found]).uncertain) == (int(expected == "trapped"), int(uncertain))
