"""What rounding weights to few bits does to traps and α: measured once, and said of every matrix and every comparison.

The numbers come from 36 real matrices (SmolLM2-135M, MiniLM-L6, Whisper-base), rounded in 26 ways, decoded and audited
with one seed: docs/rounding.md has the table. α is compared where it was below 6 before; beyond, any change moves it.
"""

from __future__ import annotations

from dataclasses import dataclass

WHOLE_BITS = 16.0
"""Bits a weight from which on nothing is said of rounding: weights are trained in as many."""

ALPHA_BITS = 4.0
"""Bits a weight below which α is that of the rounded matrix, and claims no band."""


@dataclass(frozen=True)
class RoundingEffect:
    """What rounding to at least `bits` a weight did.

    Attributes:
        bits: bits a weight, scales included.
        alpha_typical: half of the matrices had their α moved by less.
        alpha_most: nine of ten had.
        norm: the largest relative change of a spectral norm.
        traps_hold: whether no trap was lost or made beyond what another seed does.
    """

    bits: float
    alpha_typical: float
    alpha_most: float
    norm: float
    traps_hold: bool


_EFFECTS = (
    RoundingEffect(8.0, 0.01, 0.1, 0.01, traps_hold=True),
    RoundingEffect(6.0, 0.01, 0.1, 0.01, traps_hold=True),
    RoundingEffect(5.0, 0.02, 0.3, 0.01, traps_hold=True),
    RoundingEffect(ALPHA_BITS, 0.07, 0.5, 0.1, traps_hold=True),
    RoundingEffect(3.0, 0.2, 0.8, 0.15, traps_hold=False),
    RoundingEffect(0.0, 0.4, 1.0, 0.45, traps_hold=False),
)
_CLIPPED = "MXFP4"
_OF_CLIPPED = RoundingEffect(ALPHA_BITS, 0.07, 0.5, 0.25, traps_hold=False)


def rounding_effect(bits: float | None, encoding: str) -> RoundingEffect | None:
    """What rounding did to a matrix stored so; None for 16 bits and more, and where the bits are not known.

    Args:
        bits: bits a weight as stored, scales included.
        encoding: the storage format, as reports name it.
    """
    if bits is None or bits >= WHOLE_BITS:
        return None
    if encoding.startswith(_CLIPPED):
        return _OF_CLIPPED
    return next(effect for effect in _EFFECTS if bits >= effect.bits)


def rounding_words(bits: float | None, encoding: str) -> str | None:
    """The effect in one sentence, for the report of one matrix; None where there is none to speak of."""
    effect = rounding_effect(bits, encoding)
    if effect is None or bits is None:
        return None
    moved = f"by about {effect.alpha_typical:g} (in nine of ten matrices by less than {effect.alpha_most:g})"
    text = f"{bits:.3g} bits a weight: rounding moves α {moved}"
    if bits < ALPHA_BITS:
        return f"{text}, so α is that of the rounded matrix and claims no band; traps may be lost or made"
    if encoding.startswith(_CLIPPED):
        clipped = "its power-of-two scales take up to a quarter off the largest entries"
        return f"{text}; unless the model was trained so, {clipped}"
    return f"{text} and leaves traps as they are, but for those at the edge"


@dataclass(frozen=True)
class StorageAllowance:
    """What two storage formats alone may change between two matrices that are otherwise the same.

    Attributes:
        alpha: a change of α up to this says nothing.
        norm: a relative change of the spectral norm up to this says nothing.
        traps_hold: whether a trap that only one side has, away from the edge, still tells of a change.
        words: why, in one sentence.
    """

    alpha: float
    norm: float
    traps_hold: bool
    words: str

    @property
    def factor(self) -> float:
        """Two spectral norms this far apart may be one matrix: rounding takes from the larger to get the smaller."""
        return 1 / (1 - self.norm)


def storage_allowance(now: tuple[float | None, str], base: tuple[float | None, str]) -> StorageAllowance | None:
    """How much a comparison of two matrices must allow for their storage; None where both are stored alike.

    Entries are never to be compared between a matrix and its rounded copy: each is off by a part of a step.

    Args:
        now: bits a weight and encoding of the matrix judged.
        base: the same of the one that it is compared with.
    """
    if now == base or now[1] == base[1]:
        return None
    effects = [effect for side in (now, base) if (effect := rounding_effect(*side)) is not None]
    if not effects:
        return None
    names = " and ".join(
        f"{encoding} ({bits:.3g} bits)" if bits is not None else encoding for bits, encoding in (now, base)
    )
    alpha, norm = max(effect.alpha_most for effect in effects), max(effect.norm for effect in effects)
    hold = all(effect.traps_hold for effect in effects)
    words = f"stored as {names}: rounding alone may move α by {alpha:g} and the norm by {norm:.0%}"
    return StorageAllowance(alpha, norm, hold, words if hold else f"{words}, and may lose or make traps")
