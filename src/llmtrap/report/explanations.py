"""What the words of a report mean: one text for the page's tooltips, its glossary and `llmtrap explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmtrap.report.document import FindingKind
from llmtrap.report.verdict import MEAN_SHIFTS_ARE_USUAL, NO_PROOF, WHAT_IT_IS


@dataclass(frozen=True)
class Explanation:
    """One word.

    Attributes:
        title: as reports write it.
        short: one sentence, for a tooltip.
        more: what else a reader should know; may be empty.
        page: the page of the documentation that says it whole, without its ending.
    """

    title: str
    short: str
    more: str = ""
    page: str = "definitions"


EXPLANATIONS: Final[dict[str, Explanation]] = {
    "trap": Explanation("Correlation Trap", WHAT_IT_IS, NO_PROOF, "what-to-do"),
    "alpha": Explanation(
        "α",
        "The exponent of the power law that the tail of a matrix's spectrum follows: the lower, the heavier the tail.",
        "Papers on heavy-tailed self-regularisation call 2 ideal, below 2 over-trained and above 6 under-trained: "
        "rules of thumb, since healthy models reach both, and roles differ, queries and keys low, values and up "
        "projections high. Compare a matrix with its peers, and a fine-tune with its base.",
    ),
    "alpha_interval": Explanation(
        "How sure α is",
        "Every exponent between these two fits the spectrum as well, with the traps' eigenvalues and without.",
        "It covers nine of ten planted exponents. The plain error of a fit is too small: it takes x_min for known.",
    ),
    "alpha_noise": Explanation(
        "α of noise",
        "What random matrices of this shape give: a power law is fitted to noise too, and finds some α.",
        "A matrix whose spectrum and α noise explains is called like noise, and neither heavy, typical nor light.",
    ),
    "x_min": Explanation(
        "x_min",
        "Where the fitted tail begins: the eigenvalue from which on a power law fits best.",
        "It is the start with the least Kolmogorov–Smirnov distance between the tail and the law.",
    ),
    "ks": Explanation(
        "Kolmogorov–Smirnov distance",
        "The greatest gap between two cumulative distributions: 0 is a perfect fit.",
        "A tail over 0.15 from its power law is marked unreliable and claims no band.",
    ),
    "spectral_norm": Explanation(
        "Spectral norm, σ₁", "The largest singular value: how far the matrix stretches any input at most."
    ),
    "frobenius_norm": Explanation("Frobenius norm", "The root of the sum of all squared entries."),
    "stable_rank": Explanation(
        "Stable rank",
        "Σλ / λ₁: how many directions carry the matrix.",
        "A random N × M matrix has NM / (√N + √M)². A layer in which every matrix comes that near was not trained, or "
        "was replaced.",
    ),
    "hard_rank": Explanation("Hard rank", "How many singular values are not zero within rounding."),
    "entropy": Explanation(
        "Entropy", "How evenly the spectrum is spread: 1 where all eigenvalues are equal, 0 where there is one."
    ),
    "alpha_weighted": Explanation("α · log₁₀ λ₁", "α weighted by the size of the matrix, as WeightWatcher reports it."),
    "max_sigmas": Explanation(
        "Largest entry", "How many standard deviations the farthest entry lies from the mean: max |w − m| / s."
    ),
    "kurtosis": Explanation(
        "Kurtosis", "How heavy-tailed the entries are: 3 for Gaussian ones, more where some are far out."
    ),
    "edge": Explanation(
        "Edge",
        "Up to here the largest eigenvalue of a shuffled matrix comes by chance: beyond it, one in a million does.",
        "Where some shuffles show a trap and others none, the matrix is at the edge: its count is undecided.",
    ),
    "certificate": Explanation(
        "Certified", "The sizes of the entries alone rule a trap out, in every order, so none was shuffled."
    ),
    "strength": Explanation("× edge", "The trap's eigenvalue over the one that chance gives."),
    "entry": Explanation(
        "Large entry",
        "One weight so far from the others that it makes a trap by itself; its row and column are named.",
        "Damage, an edit, or an entry that the model needs: ablation tells.",
        "what-to-do",
    ),
    "heavy_tail": Explanation(
        "Heavy-tailed entries", "Many large weights together make the trap, and no single one.", "", "what-to-do"
    ),
    "mean_shift": Explanation("Mean shift", "The average of all entries is off zero.", MEAN_SHIFTS_ARE_USUAL),
    "usual": Explanation(
        "Usual", "What there is, published models have too, or nearly.", "It is no proof of health.", "reference"
    ),
    "unusual": Explanation(
        "Unusual",
        "Something goes far beyond every published model, or a layer looks like random numbers.",
        "Rare is not wrong: it says where to look.",
        "reference",
    ),
    "peers": Explanation(
        "Peers",
        "The matrices of the same role in this model; of an expert, the other experts of its layer.",
        "A trend over depth is removed, and what is left is measured in robust deviations (z). Among all that are said "
        "to stand out, one in a hundred is by chance.",
        "reference",
    ),
    "reference": Explanation(
        "Published models",
        "How many published models have as much, in a matrix of the same role; fine-tunes count with their base.",
        "`llmtrap reference` lists them, and `--reference FILE` takes your own.",
        "reference",
    ),
    "outlier_channel": Explanation(
        "Outlier channel",
        "A row or column that holds large entries in three layers or more.",
        "Many healthy transformers have some; quantisation must treat them apart.",
        "what-to-do",
    ),
    "noise": Explanation(
        "Like random numbers",
        "No matrix of the layer has a spectrum that differs from noise: not trained, or replaced.",
        "",
        "reference",
    ),
}

OF_FINDING: Final[dict[FindingKind, str]] = {
    "broken_values": "unusual",
    "zeros": "unusual",
    "like_noise": "noise",
    "rare_entry": "entry",
    "rare_kurtosis": "heavy_tail",
    "rare_norm": "spectral_norm",
    "trapped_share": "trap",
    "outlier_channel": "outlier_channel",
    "large_entries": "entry",
    "heavy_tail": "heavy_tail",
    "heavy_spectrum": "alpha",
    "stands_out": "peers",
}
"""The word that explains each kind of finding."""


def page_of(kind: FindingKind) -> str:
    """The page of the documentation, without its ending, that says what to make of a kind of finding."""
    return EXPLANATIONS[OF_FINDING[kind]].page
