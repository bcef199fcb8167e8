"""Which layers a layer's number counts, and what matrices of one kind have in common."""

from __future__ import annotations

import pytest
from tests.support.documents import matrix

from llmtrap.report.facts import block


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
