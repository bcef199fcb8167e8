"""What is said of rounding, from the bits that a matrix is stored in; and what a comparison allows for."""

from __future__ import annotations

import pytest

from llmtrap.rounding import StorageAllowance, rounding_effect, rounding_words, storage_allowance


@pytest.mark.parametrize(
    ("bits", "encoding", "most", "hold"),
    [
        (8.5, "Q8_0", 0.1, True),
        (8.0, "F8_E4M3 scaled per tensor", 0.1, True),
        (6.6, "Q6_K", 0.1, True),
        (5.5, "Q5_K", 0.3, True),
        (4.5, "NVFP4", 0.5, True),
        (4.0, "INT4 scaled per row", 0.5, True),
        (4.25, "MXFP4", 0.5, False),
        (4.25, "MXFP4 (MLX)", 0.5, False),
        (3.99, "Q3_K", 0.8, False),
        (2.6, "Q2_K", 1.0, False),
    ],
)
def test_the_effect_is_that_of_so_many_bits(bits: float, encoding: str, most: float, hold: bool) -> None:
    effect = rounding_effect(bits, encoding)
    assert effect is not None
    assert (effect.alpha_most, effect.traps_hold) == (most, hold)


@pytest.mark.parametrize("bits", [16.0, 32.0, None])
def test_nothing_is_said_of_weights_in_16_bits(bits: float | None) -> None:
    assert rounding_effect(bits, "BF16") is None
    assert rounding_words(bits, "BF16") is None


def test_the_words_say_where_no_band_is_claimed() -> None:
    assert rounding_words(4.5, "NVFP4") == (
        "4.5 bits a weight: rounding moves α by about 0.07 (in nine of ten matrices by less than 0.5) and leaves traps "
        "as they are, but for those at the edge"
    )
    assert str(rounding_words(3.4, "Q3_K")).endswith("claims no band; traps may be lost or made")
    assert "a quarter off the largest entries" in str(rounding_words(4.25, "MXFP4"))


def test_a_comparison_between_formats_allows_for_the_coarser() -> None:
    four, eight, plain = (4.5, "NVFP4"), (8.0, "F8_E4M3 scaled per row"), (16.0, "BF16")
    words = "stored as NVFP4 (4.5 bits) and BF16 (16 bits): rounding alone may move α by 0.5 and the norm by 10%"
    assert storage_allowance(four, plain) == StorageAllowance(0.5, 0.1, traps_hold=True, words=words)
    between = storage_allowance(eight, four)
    assert between is not None
    assert between.alpha == 0.5
    coarse = storage_allowance(plain, (2.6, "Q2_K"))
    assert coarse is not None
    assert not coarse.traps_hold
    assert coarse.words.endswith("and may lose or make traps")


@pytest.mark.parametrize(
    ("now", "base"),
    [((4.5, "NVFP4"), (4.5, "NVFP4")), ((4.13, "NF4"), (4.14, "NF4")), ((16.0, "BF16"), (32.0, "F32"))],
)
def test_nothing_is_allowed_between_like_formats_or_where_nothing_is_rounded(
    now: tuple[float, str], base: tuple[float, str]
) -> None:
    assert storage_allowance(now, base) is None
