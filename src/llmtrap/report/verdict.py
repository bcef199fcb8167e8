"""What a report says about a checkpoint, in words a person can act on; every output takes its words from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmtrap.report.coverage import coverage_words, is_incomplete, is_partial, unmeasured_names
from llmtrap.report.document import Caution, Coverage, Finding, Matrix, Report, ReportLevel, TensorFinding
from llmtrap.report.facts import Tally, is_at_edge, is_notable, strongest, tally, worst
from llmtrap.report.formatting import fixed, join, number, plural, printable
from llmtrap.spectra.measured import CauseKind, Trap

Level = Literal["broken", "unusual", "usual", "partial", "undecided", "nothing"]
Tone = Literal["red", "amber", "green", "grey"]

WHAT_IT_IS = (
    "A Correlation Trap is what stays when all entries of a weight matrix are shuffled: an eigenvalue beyond the edge "
    "that random-matrix theory allows. It cannot come from what the matrix has learned as a whole, only from entries "
    "of unusual size. In experiments such traps appeared as a model began to overfit."
)
NO_PROOF = "A trap alone proves no harm: it says where to look."
MEAN_SHIFTS_ARE_USUAL = "Healthy networks have mean shifts too, so they are counted apart."

_MEANINGS: dict[Level | Literal["rotated", "not_known"], str] = {
    "broken": "Such a matrix cannot work, and nothing else can be measured in it.",
    "unusual": "It says where to look: what is rare need not be wrong, and weights alone prove no harm.",
    "not_known": "There is no reference to tell how usual that is: compare with the model it was tuned from.",
    "usual": "What there is, healthy published models have too. That is no proof that the model does not overfit.",
    "partial": "Of the rest nothing is known, so nothing is called usual.",
    "undecided": "Audit again with --traps auto, which shuffles what cannot be certified.",
    "rotated": "A rotation hides every trap: audit the checkpoint before it was rotated.",
    "nothing": "See below which tensors were skipped or failed, and why.",
}

LIMITS = (
    "Trap counts alone prove no harm. A trap may be benign, and a model may overfit without one.",
    "Mean shifts are counted apart: networks that generalise well have them too, and removing them breaks such "
    "networks. Only traps made by single large entries or by heavy-tailed entries count in the verdict.",
    "α differs between architectures, roles and shapes. Compare it only between matrices of one kind and shape, best "
    "against the base that a model was tuned from. The bands 2 and 6 are rules of thumb: papers call α below 2 "
    "over-trained and above 6 under-trained.",
    "A fit marked unreliable (few eigenvalues, a short tail, a poor fit) claims no band.",
    "In matrices with a smaller side under 50 the count of traps is marked unreliable and is not part of the verdict.",
    "No data is used: what a model does on inputs, and how well, is not measured here.",
)

SOURCES = (
    ("Prakash and Martin: Correlation Traps and their appearance with overfitting", "arXiv:2602.02859"),
    ("Prakash and Martin: localisation, condensation and ablation of traps", "arXiv:2605.12394"),
    ("Clauset, Shalizi and Newman 2009: the power-law fit", "arXiv:0706.1062"),
    ("Johnstone 2001 and Chiani 2014: the edge of the Tracy–Widom law", "arXiv:1209.3394"),
)


@dataclass(frozen=True)
class Verdict:
    """The answers of a report: is there a problem, where, why, and how sure is that.

    Attributes:
        level: what leads: broken values, something rare, nothing rare, too little measured to call the rest usual,
            nothing decided, nothing measured.
        word: the level in a word or two.
        tone: its colour: red for what is broken or rare, amber where nothing says how rare it is or too little is
            known, green for usual.
        lead: what was found, as one sentence.
        rest: what must be said beside it; may be empty.
        worst: the matrix to look at first; None where none is notable.
        meaning: what follows from the level, and what does not.
        certainty: how the traps were decided, doubtful cases, and how many false alarms to expect.
        alpha: how many matrices have a heavy, a typical and a light tail.
        coverage: how much of the checkpoint was measured.
        unmeasured: tensors and matrices that could not be measured, the largest first.
        complete: whether everything that was asked for was measured and decided.
    """

    level: Level
    word: str
    tone: Tone
    lead: str
    rest: str
    worst: Matrix | None
    meaning: str
    certainty: str
    alpha: str
    coverage: str
    unmeasured: tuple[str, ...]
    complete: bool

    @property
    def headline(self) -> str:
        """All that was found."""
        return f"{self.lead} {self.rest}".rstrip()


_WORDS: dict[Level, str] = {
    "broken": "Broken values",
    "unusual": "Unusual",
    "usual": "Usual",
    "partial": "Partly measured",
    "undecided": "Not decided",
    "nothing": "Nothing measured",
}
_TONES: dict[Level, Tone] = {
    "broken": "red",
    "unusual": "red",
    "usual": "green",
    "partial": "amber",
    "undecided": "amber",
    "nothing": "grey",
}
LONGEST_FINDING = 1000  # characters: it names matrices, whose names may have any length
_MOST_TOLD = 3  # findings that the verdict tells; the list has all


def verdict(report: Report) -> str:
    """The verdict as one short paragraph: what is rare, traps by cause, doubtful cases, α and what is missing."""
    parts = [*sentences(report), alpha_words(tally(report.matrices))]
    if report.coverage.failed:
        parts.append(f"{plural(len(report.coverage.failed), 'matrix')} could not be measured.")
    return " ".join(part for part in parts if part)


def report_level(
    counts: Tally, coverage: Coverage, findings: Sequence[Finding], cautions: Sequence[Caution] = ()
) -> ReportLevel:
    """The verdict in one word for programs, from what was found and what was not measured."""
    weights = {finding.weight for finding in findings}
    if "broken" in weights:
        return "broken"
    if counts.matrices == 0:
        return "nothing_measured"
    if "unusual" in weights:
        return "unusual"
    if is_rotated(cautions) or counts.decided == 0 or is_partial(coverage):
        return "partly_measured"
    return "usual"


def is_rotated(cautions: Sequence[Caution]) -> bool:
    """Whether the weights are stored rotated, so that traps cannot be seen in them."""
    return any(item.kind == "rotated" for item in cautions)


def judge(report: Report) -> Verdict:
    """The whole verdict of a report."""
    counts = tally(report.matrices)
    cautions = report.target.cautions
    level = _level(report, counts)
    lead, *rest = sentences(report)
    first = next((m for m in worst(report.matrices, 1) if is_notable(m)), None)
    meaning: Level | Literal["rotated", "not_known"] = level
    if level == "undecided" and is_rotated(cautions):
        meaning = "rotated"
    if level == "unusual" and report.summary.reference is None:
        meaning = "not_known"
    return Verdict(
        level=level,
        word=_WORDS[level],
        tone="amber" if meaning == "not_known" else _TONES[level],
        lead=lead,
        rest=" ".join(rest),
        worst=first,
        meaning=_MEANINGS[meaning],
        certainty=certainty(counts, report),
        alpha=alpha_words(counts),
        coverage=coverage_words(report.coverage),
        unmeasured=unmeasured_names(report.coverage),
        complete=not is_incomplete(report.coverage)
        and report.coverage.audited >= report.coverage.planned
        and not counts.states["undecided"]
        and not is_rotated(cautions),
    )


def _level(report: Report, counts: Tally) -> Level:
    """The report's own level; what is only partly measured may be so because nothing was decided."""
    stated = report.summary.level
    if stated == "partly_measured":
        return "undecided" if is_rotated(report.target.cautions) or counts.decided == 0 else "partial"
    return "nothing" if stated == "nothing_measured" else stated


def sentences(report: Report) -> list[str]:
    """What was found, in a few sentences, the gravest first; never none."""
    counts = tally(report.matrices)
    grave = [finding for finding in report.findings if finding.weight != "usual"]
    parts = [printable(finding.text, LONGEST_FINDING) for finding in grave[:_MOST_TOLD]]
    if len(grave) > _MOST_TOLD:
        parts.append(f"And {plural(len(grave) - _MOST_TOLD, 'finding')} more.")
    if counts.matrices == 0:
        return [*parts, "No matrix was measured, so nothing can be said."]
    used = report.summary.reference
    if not grave and used is not None and report.summary.level == "usual":
        parts.append(f"Nothing here goes far beyond what {plural(used.lineages, 'published model')} have.")
    if not any(finding.kind == "trapped_share" for finding in grave):
        parts += _traps(report, counts)
    if undecided := counts.states["undecided"]:
        parts.append(f"{plural(undecided, 'matrix')} could not be decided without a shuffle: audit with --traps auto.")
    if counts.states["edge"]:
        parts.append(
            f"{plural(counts.states['edge'], 'matrix')} {_is(counts.states['edge'])} at the edge: "
            "whether a trap shows depends on the shuffle."
        )
    if is_partial(report.coverage):
        parts.append("Too little was measured to call the rest usual.")
    return [*parts, *(item.text for item in report.target.cautions)]


def _traps(report: Report, counts: Tally) -> list[str]:
    """How many matrices have traps, from which causes, and how rare that is; where none has, among how many."""
    said = next((finding for finding in report.findings if finding.kind == "trapped_share"), None)
    if said is not None:
        return [printable(said.text, LONGEST_FINDING)]
    if counts.trapped:
        return [f"{trap_words(counts)}."]
    undecided = counts.states["undecided"]
    if counts.decided:
        among = plural(counts.decided, "matrix")
        if undecided or is_partial(report.coverage):
            among = f"the {among} that {_was(counts.decided)} {'decided' if undecided else 'measured'}"
        return [f"No Correlation Traps in {among}."]
    if undecided == 0 and not counts.states["non_finite"]:
        return ["Traps were not looked for."]
    return []


def trap_words(counts: Tally) -> str:
    """`2 of 86 matrices have Correlation Traps, all from single entries of unusual size`."""
    return (
        f"{counts.trapped:,} of {plural(counts.matrices, 'matrix')} "
        f"{'has' if counts.trapped == 1 else 'have'} Correlation Traps{_causes(counts)}"
    )


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _causes(counts: Tally) -> str:
    said: dict[CauseKind | None, str] = {
        "entry": "from single entries of unusual size",
        "heavy_tail": "from many large entries",
        None: "of unknown cause, since the first shuffle, in which causes are looked for, shows none of their traps",
    }
    kinds = [kind for kind in said if counts.causes[kind]]
    if len(kinds) == 1:
        return f", {'all ' if counts.trapped > 1 else ''}{said[kinds[0]]}"
    return ": " + join([f"{counts.causes[kind]:,} {said[kind]}" for kind in kinds])


def alpha_words(counts: Tally) -> str:
    """How many matrices have a heavy, a typical and a light tail, or one like noise; empty where α was left out."""
    fitted = counts.over + counts.well + counts.under + counts.random
    if fitted + counts.unreliable_alpha == 0:
        return ""
    if fitted == 0:
        return f"No fit of α is reliable ({plural(counts.unreliable_alpha, 'matrix')})."
    text = (
        f"α: {counts.over:,} of {plural(fitted, 'matrix')} with a heavy tail (below 2), {counts.well:,} typical, "
        f"{counts.under:,} with a light tail (above 6)"
    )
    if counts.random:
        text += f", {counts.random:,} like noise"
    return f"{text}; {plural(counts.unreliable_alpha, 'fit')} unreliable." if counts.unreliable_alpha else f"{text}."


def remembered_words(report: Report) -> str:
    """How many matrices were measured before, and when; empty where none was."""
    kept = report.summary.remembered
    if kept is None:
        return ""
    when = f"at {kept.newest}" if kept.oldest == kept.newest else f"from {kept.oldest} to {kept.newest}"
    return f"{plural(kept.matrices, 'matrix')} from the journal, measured {when}"


def certainty(counts: Tally, report: Report) -> str:
    """How sure the trap counts are: how they were decided, what is doubtful, how many to expect by chance."""
    if counts.decided == 0:
        return "Nothing was decided about traps."
    parts = []
    if counts.certified:
        parts.append(f"{plural(counts.certified, 'matrix')} certified free of traps by the sizes of their entries")
    if counts.measured:
        measured = f"{counts.measured:,}" if parts else plural(counts.measured, "matrix")
        parts.append(f"{measured} measured by shuffling")
    if counts.predicted:
        predicted = f"{counts.predicted:,}" if parts else plural(counts.predicted, "matrix")
        parts.append(f"{predicted} with predicted traps, those that every shuffle must show")
    text = f"{join(parts)}."
    if edge := counts.states["edge"]:
        text += f" {plural(edge, 'matrix')} at the edge: there the shuffle decides."
    if counts.states["unreliable"]:
        text += f" {plural(counts.states['unreliable'], 'matrix')} too small for a reliable count, left out."
    return f"{text} {chance(report)} {rounded(report)}".rstrip()


def rounded(report: Report) -> str:
    """How many matrices are stored in fewer than 16 bits, and what that does to those in the fewest; may be empty."""
    stored = [matrix for matrix in report.matrices if matrix.rounding is not None and matrix.bits is not None]
    if not stored:
        return ""
    fewest = min(stored, key=lambda matrix: matrix.bits or 0.0)
    return f"{plural(len(stored), 'matrix')} in fewer than 16 bits; in the fewest, {fewest.rounding}."


def chance(report: Report) -> str:
    """How many traps to expect by chance alone."""
    expected = report.summary.expected_false_traps
    if expected is None:
        return "This rule gives no number of false alarms to expect."
    text = f"False alarms to expect by chance, if entries were light-tailed: {number(expected, 2)}"
    return f"{text}, that is one in {number(1 / expected, 2)} such audits." if 0 < expected < 0.5 else f"{text}."


def finding(matrix: Matrix) -> str:
    """What is notable about one matrix, and why; the sentence goes on from its name."""
    if matrix.non_finite is not None:
        bad = matrix.non_finite
        first = f"the first at row {bad.row:,}, column {bad.column:,}"
        return f"{bad.nan:,} NaN and {bad.inf:,} infinite entries, {first}."
    if matrix.all_zero:
        return "every entry is zero: the layer adds nothing."
    trap = strongest(matrix)
    if matrix.traps is not None and matrix.traps.centred > 0:
        doubt = " (at the edge: not in every shuffle)" if is_at_edge(matrix) else ""
        first = f"the first of {plural(matrix.traps.shuffles, 'shuffle')}, in which causes are looked for, shows none"
        why = cause_words(trap, matrix) if trap is not None else f"not known, since {first}"
        much = f", {number(trap.strength)} times the random edge" if trap is not None else ""
        return f"{plural(matrix.traps.centred, 'trap')}{much}{doubt}. Cause: {why}."
    if is_at_edge(matrix):
        return "at the edge: whether a trap shows depends on the shuffle."
    if matrix.alpha is not None and matrix.alpha.reliable and matrix.alpha.band == "over":
        return f"α = {fixed(matrix.alpha.value)}, a very heavy tail."
    return "nothing notable."


def tensor_finding(finding: TensorFinding) -> str:
    """What is wrong with a tensor that is no matrix; the sentence goes on from its name."""
    if finding.all_zero:
        return "every value is zero."
    place = "" if not finding.first else f", the first at {list(finding.first)}"
    return f"{finding.nan:,} NaN and {finding.inf:,} infinite values{place}."


ACTIVITY_WORDS = {
    "inert": "inert: ablated, it changes nothing beyond what ordinary entries do",
    "weak": "weak: ablated, it changes predictions a little",
    "active": "active: ablated, it changes predictions",
    "needed": "needed: the model predicts text worse without it",
    "harmful": "harmful: the model predicts text better without it",
}


def cause_words(trap: Trap, matrix: Matrix) -> str:
    """Why there is a trap, in words: what to look at, and where it lies in the stored matrix."""
    cause = trap.cause
    if cause.kind == "entry":
        place = "one entry"
        if cause.value is not None:
            place += f" of {number(cause.value)}"
        if cause.row is not None and cause.column is not None:
            place += f" (row {cause.row:,}, column {cause.column:,})"
        if cause.sigmas is not None:
            place += f", {number(abs(cause.sigmas))} standard deviations from the mean"
        return place if cause.activity is None else f"{place}; {ACTIVITY_WORDS[cause.activity]}"
    traps = matrix.traps
    if cause.kind == "mean_shift":
        shift = ""
        if traps is not None and traps.mean is not None and traps.bulk_variance:
            shift = f" ({number(traps.mean / traps.bulk_variance**0.5)} standard deviations)"
        return f"the mean of all entries is off zero{shift}"
    kurtosis = f" (kurtosis {number(traps.kurtosis)})" if traps is not None and traps.kurtosis is not None else ""
    return f"many moderately large entries{kurtosis}: a heavy tail"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
