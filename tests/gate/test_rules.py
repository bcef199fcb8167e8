"""Each rule on synthetic matrices: what it finds, and what it must leave alone."""

from __future__ import annotations

import math

import pytest
from tests.support.documents import matrix, report

from llmtrap.gate.document import Judgement, Update
from llmtrap.report.document import FailedMatrix, Matrix
from llmtrap.spectra.measured import Cause, NonFinite, Trap


def found(judgement: Judgement, level: str = "error") -> list[tuple[str, str | None]]:
    return [(finding.rule, finding.id) for finding in judgement.findings if finding.level == level]


def with_trap(kind: str, z: float, strength: float = 1.5, row: int = 3, column: int = 4, **changes) -> Matrix:
    """A measured matrix with one trap; the spread over shuffles is none unless `low` or `high` say otherwise."""
    made = matrix("layers.0.mlp.up", layer=0, role="up", method="measured", causes=[(kind, strength)])
    cause = Cause(kind=kind, row=row, column=column, value=1.0, sigmas=40.0) if kind == "entry" else Cause(kind=kind)
    found_ = (Trap(eigenvalue=1.0, z=z, strength=strength, cause=cause),)
    traps = made.traps.model_copy(update={"found": found_, "top_z": z, **changes})
    return made.model_copy(update={"traps": traps})


CLEAN = matrix("layers.0.mlp.up", layer=0, role="up")


def with_alpha(value: float, sigma: float = 0.1, reliable: bool = True) -> Matrix:
    alpha = CLEAN.alpha.model_copy(update={"value": value, "sigma": sigma, "reliable": reliable})
    return CLEAN.model_copy(update={"alpha": alpha})


def with_spectrum(**changes: float) -> Matrix:
    return CLEAN.model_copy(update={"spectrum": CLEAN.spectrum.model_copy(update=changes)})


def test_a_report_against_itself_passes(judged) -> None:
    both = [with_trap("entry", 40.0), matrix("layers.1.mlp.up", layer=1, role="up", alpha=1.4)]
    judgement = judged(both, both)
    assert (judgement.outcome, judgement.exit_code, judgement.findings) == ("passed", 0, ())


@pytest.mark.parametrize("kind", ["entry", "heavy_tail", "mean_shift"])
def test_lt001_finds_every_kind_of_new_trap(judged, kind: str) -> None:
    judgement = judged([with_trap(kind, 20.0)], [CLEAN])
    assert found(judgement) == [("LT001", "layers.0.mlp.up")]
    assert judgement.exit_code == 1


def test_lt001_finds_another_entry_in_a_matrix_with_as_many_traps(judged) -> None:
    judgement = judged([with_trap("entry", 20.0, row=9)], [with_trap("entry", 21.0, row=3)])
    assert found(judgement) == [("LT001", "layers.0.mlp.up")]
    assert "row 9, column 4" in judgement.findings[0].message


def test_lt001_finds_a_mean_shift_beside_an_inherited_entry(judged) -> None:
    was = with_trap("entry", 20.0)
    both = (*was.traps.found, Trap(eigenvalue=1.0, z=15.0, strength=1.2, cause=Cause(kind="mean_shift")))
    now = was.model_copy(
        update={"traps": was.traps.model_copy(update={"found": both, "count": 2, "low": 2, "high": 2})}
    )
    judgement = judged([now], [was])
    assert [f.message.split(":")[1] for f in judgement.findings] == [
        " the mean of all entries moved off zero; the base has 1 trap, this has 2 traps"
    ]


@pytest.mark.parametrize(
    ("now", "was"),
    [
        pytest.param(with_trap("entry", 20.0), with_trap("entry", 20.0), id="inherited"),
        pytest.param(with_trap("heavy_tail", 20.0), with_trap("entry", 20.0), id="the same trap, named otherwise"),
        pytest.param(with_trap("entry", 7.0, low=0, high=1), with_trap("entry", 6.9, low=0, high=1), id="at the edge"),
        pytest.param(with_trap("entry", 7.0, low=0, high=1), CLEAN, id="not in every shuffle, and near the edge"),
        pytest.param(with_trap("entry", 7.0, row=9), with_trap("entry", 7.0), id="another entry at the edge"),
        pytest.param(CLEAN, with_trap("entry", 20.0), id="gone"),
    ],
)
def test_lt001_does_not_cry_wolf(judged, now: Matrix, was: Matrix) -> None:
    assert found(judged([now], [was])) == []


def test_lt001_margin_is_the_policy_s(judged) -> None:
    now, was = with_trap("entry", 8.0, row=9), with_trap("entry", 8.0)
    assert found(judged([now], [was])) == []
    assert found(judged([now], [was], rules={"LT001": {"margin": 1.0}})) == [("LT001", "layers.0.mlp.up")]


def test_lt001_leaves_counts_of_tiny_matrices_alone_and_says_how_many(judged) -> None:
    now = matrix("router", shape=(32, 512), method="measured", causes=[("entry", 4.0)])
    judgement = judged([now], [matrix("router", shape=(32, 512))])
    assert found(judgement) == []
    assert judgement.counts.too_small == 1


def predicted(z: float, **changes) -> Matrix:
    return with_trap("entry", z, method="predicted", shuffles=0, top_z_low=None, top_z_high=None, **changes)


def test_lt001_a_predicted_trap_is_proved_where_one_shuffle_is_not(judged) -> None:
    near = 4.5  # under what chance alone gives one matrix in a million
    judgement = judged([predicted(near)], [CLEAN])
    assert [finding.message for finding in judgement.errors] == [
        "new trap, 1.5 times the random edge (z = 4.5): the entry at row 3, column 4, 40 standard deviations from the "
        "mean; the base has no trap, this has 1 trap"
    ]
    assert found(judged([with_trap("entry", near, shuffles=1)], [CLEAN])) == []


def test_predicted_and_shuffled_traps_are_the_same_trap(judged) -> None:
    for now, was in ((predicted(40.0), with_trap("entry", 40.5)), (with_trap("entry", 40.5), predicted(40.0))):
        judgement = judged([now], [was])
        assert (judgement.outcome, judgement.findings, judgement.counts.measured) == ("passed", (), 1)


def test_lt002_finds_growth_beyond_the_tolerance_alone(judged) -> None:
    was = with_trap("entry", 20.0, strength=2.0)
    assert found(judged([with_trap("entry", 30.0, strength=2.6)], [was])) == [("LT002", "layers.0.mlp.up")]
    assert found(judged([with_trap("entry", 30.0, strength=2.4)], [was])) == []
    assert found(judged([with_trap("entry", 22.0, strength=2.6)], [was])) == []


def test_lt003_needs_a_fall_through_2_beyond_the_errors(judged) -> None:
    assert found(judged([with_alpha(1.5)], [with_alpha(2.6)])) == [("LT003", "layers.0.mlp.up")]
    assert found(judged([with_alpha(1.9)], [with_alpha(2.1)])) == []
    assert found(judged([with_alpha(1.2)], [with_alpha(1.9)])) == []


def test_lt003_and_lt004_allow_for_rounding_between_two_storage_formats(judged) -> None:
    def stored(value: float, bits: float, encoding: str) -> Matrix:
        return with_alpha(value, sigma=0.01).model_copy(update={"bits": bits, "encoding": encoding})

    coarse = {"bits": 2.6, "encoding": "Q2_K"}
    for value, base, rule in ((3.9, 3.0, "LT004"), (1.6, 2.3, "LT003")):
        alike = judged([stored(value, **coarse)], [stored(base, **coarse)])
        assert rule in [name for level in ("error", "warn") for name, _ in found(alike, level)]
        rounded = judged([stored(value, **coarse)], [stored(base, 16.0, "BF16")])
        assert rule not in [name for level in ("error", "warn") for name, _ in found(rounded, level)]
    beyond = judged([stored(5.0, **coarse)], [stored(3.0, 16.0, "BF16")])
    assert ("LT004", "layers.0.mlp.up") in found(beyond, "warn")
    assert "rounding alone may move α by 1" in " ".join(item.message for item in beyond.findings)


def stored_as(made: Matrix, bits: float, encoding: str) -> Matrix:
    return made.model_copy(update={"bits": bits, "encoding": encoding})


@pytest.mark.parametrize(("bits", "encoding"), [(2.6, "Q2_K"), (4.25, "MXFP4")])
def test_lt001_takes_no_trap_for_proved_where_rounding_loses_and_makes_them(judged, bits: float, encoding: str) -> None:
    trapped = with_trap("entry", 20.0)
    for now, was in ((bits, 16.0), (16.0, bits)):
        names = {16.0: "BF16", bits: encoding}
        judgement = judged([stored_as(trapped, now, names[now])], [stored_as(CLEAN, was, names[was])])
        assert (judgement.exit_code, found(judgement)) == (3, [])
        (open_,) = [item for item in judgement.unjudged if item.rule == "LT001"]
        assert "no trap in the base, 1 trap here" in open_.reason
        assert "and may lose or make traps" in open_.reason
    alike = judged([stored_as(trapped, bits, f"{encoding} + LoRA (rank 8)")], [stored_as(CLEAN, bits, encoding)])
    assert found(alike) == [("LT001", CLEAN.id)]
    finer = judged([stored_as(trapped, 4.5, "NF4")], [stored_as(CLEAN, 16.0, "BF16")])
    assert found(finer) == [("LT001", CLEAN.id)]


def test_lt002_allows_a_trap_the_growth_that_rounding_took_from_its_base(judged) -> None:
    was = stored_as(with_trap("entry", 20.0, strength=2.0), 2.6, "Q2_K")
    for strength, expected in ((3.6, []), (3.7, [("LT002", CLEAN.id)])):  # 2 / (1 − 0.45) = 3.64
        now = with_trap("entry", 30.0, strength=strength)
        assert found(judged([stored_as(now, 16.0, "BF16")], [was])) == expected
        assert found(judged([stored_as(now, 2.6, "Q2_K")], [was])) == [("LT002", CLEAN.id)]


def test_lt009_allows_the_norm_what_rounding_takes_and_the_stable_rank_its_square(judged) -> None:
    was = stored_as(with_spectrum(spectral_norm=10.0, stable_rank=30.0), 2.6, "Q2_K")
    for norm, rank, expected in (
        (18.1, 30.0, []), (18.3, 30.0, [("LT009", CLEAN.id)]), (10.0, 99.0, []), (10.0, 99.5, [("LT009", CLEAN.id)]),
    ):  # fmt: skip
        judgement = judged([stored_as(with_spectrum(spectral_norm=norm, stable_rank=rank), 16.0, "BF16")], [was])
        assert found(judgement) == expected
        assert all("rounding alone" in item.message for item in judgement.errors)
    now = stored_as(with_spectrum(spectral_norm=18.1, stable_rank=30.0), 2.6, "Q2_K")
    assert found(judged([now], [was])) == [("LT009", CLEAN.id)]


def test_lt004_warns_of_drift_and_of_a_fit_that_broke_down(judged) -> None:
    assert found(judged([with_alpha(5.0)], [with_alpha(3.0)]), "warn") == [("LT004", "layers.0.mlp.up")]
    assert found(judged([with_alpha(3.3)], [with_alpha(3.0)]), "warn") == []
    lost = judged([with_alpha(3.0, reliable=False)], [with_alpha(3.0)], rules={"LT004": {"level": "error"}})
    assert (found(lost), lost.exit_code) == ([("LT004", "layers.0.mlp.up")], 1)


def test_lt005_finds_broken_entries_in_matched_added_and_unmatched_matrices(judged) -> None:
    broken = matrix("layers.0.mlp.up", non_finite=NonFinite(nan=2, inf=1, row=3, column=5))
    assert found(judged([broken], [CLEAN])) == [("LT005", "layers.0.mlp.up")]
    assert found(judged([broken])) == [("LT005", "layers.0.mlp.up")]
    assert ("LT005", "layers.0.mlp.up") in found(judged([CLEAN.model_copy(update={"id": "other"}), broken], [CLEAN]))
    assert found(judged([broken], [broken])) == [("LT005", "layers.0.mlp.up")]


@pytest.mark.parametrize(
    ("now", "was", "words"),
    [
        pytest.param(
            report([CLEAN], failed=[FailedMatrix(id="a.b", tensor="a.b", error="cut short")]),
            report([CLEAN, matrix("a.b")]),
            "cut short",
            id="not measured here",
        ),
        pytest.param(
            report([CLEAN, matrix("a.b")]),
            report([CLEAN], failed=[FailedMatrix(id="a.b", tensor="a.b", error="cut short")]),
            "the base has no measurement of it: cut short",
            id="not measured in the base",
        ),
        pytest.param(
            report([CLEAN, matrix("a.b", method="undecided")]), report([CLEAN, matrix("a.b")]), "undecided",
            id="undecided",
        ),
        pytest.param(
            report([CLEAN, matrix("a.b")]),
            report([CLEAN, matrix("a.b", non_finite=NonFinite(nan=1, inf=0, row=0, column=0))]),
            "the base has NaN",
            id="the base is broken",
        ),
    ],
)  # fmt: skip
def test_lt006_what_could_not_be_judged_never_passes(judged, now, was, words: str) -> None:
    judgement = judged(now, was)
    assert (judgement.outcome, judgement.exit_code) == ("incomplete", 3)
    assert {finding.rule for finding in judgement.errors} == {"LT006"}
    assert any(words in finding.message for finding in judgement.errors)
    assert judged(now, was, rules={"LT006": {"min_coverage": 0.5}}).exit_code == 0


def test_lt006_another_trap_rule_is_not_compared(judged) -> None:
    other = CLEAN.model_copy(update={"traps": CLEAN.traps.model_copy(update={"rule": "weightwatcher"})})
    judgement = judged([other], [CLEAN])
    assert judgement.exit_code == 3
    assert any("the trap rules differ" in finding.message for finding in judgement.errors)


def test_lt006_another_architecture_is_no_violation_but_no_verdict(judged) -> None:
    here = [matrix(f"layers.{k}.mlp.up", layer=k, role="up") for k in range(4)]
    there = [matrix(f"layers.{k}.mlp.up", layer=k, role="up", shape=(768, 300)) for k in range(4)]
    judgement = judged(here, there)
    assert (judgement.exit_code, found(judgement)) == (3, [("LT006", None)])
    assert "another architecture" in judgement.headline
    broken = [*here[1:], matrix("layers.0.mlp.up", non_finite=NonFinite(nan=1, inf=0, row=0, column=0))]
    assert judged(broken, there).exit_code == 3


@pytest.mark.parametrize(("alike", "exit_code"), [(1, 3), (2, 1)])
def test_lt006_half_of_the_smaller_side_must_be_in_the_other(judged, alike: int, exit_code: int) -> None:
    """A quarter is another architecture, and no verdict; half is one that was changed, and a violation."""
    here = [matrix(f"layers.{k}.mlp.up", layer=k, role="up") for k in range(4)]
    there = [
        *here[:alike],
        *(matrix(f"layers.{k}.mlp.up", layer=k, role="up", shape=(768, 300)) for k in range(alike, 4)),
    ]
    judgement = judged(here, there)
    assert judgement.exit_code == exit_code
    assert ("another architecture" in judgement.headline) == (exit_code == 3)


def test_lt006_nothing_audited_and_an_adapter_alone(judged) -> None:
    assert judged([]).exit_code == 3
    assert judged([CLEAN], adapter_alone=True).exit_code == 3
    assert judged([CLEAN], adapter_alone=True, rules={"LT006": {"adapter_alone": True}}).exit_code == 0


def test_a_violation_found_counts_more_than_what_was_not_judged(judged) -> None:
    now = report([with_trap("entry", 20.0)], failed=[FailedMatrix(id="a.b", tensor="a.b", error="cut short")])
    assert judged(now, [CLEAN, matrix("a.b")]).exit_code == 1


def test_lt007_missing_added_and_reshaped_matrices(judged) -> None:
    shared = [matrix(f"layers.{k}.mlp.up", layer=k, role="up") for k in range(3)]
    now = [*shared, matrix("new"), matrix("changed", shape=(512, 200))]
    was = [*shared, matrix("old"), matrix("changed", shape=(512, 384))]
    judgement = judged(now, was)
    assert sorted(found(judgement)) == [("LT007", "changed"), ("LT007", "new"), ("LT007", "old")]
    assert (judgement.counts.added, judgement.counts.missing, judgement.counts.reshaped) == (1, 1, 1)
    allowed = judged(now, was, rules={"LT007": {"allow_added": True, "allow_missing": True}})
    assert found(allowed) == [("LT007", "changed")]


def test_lt007_a_matrix_stored_transposed_is_of_the_same_shape(judged) -> None:
    now = CLEAN.model_copy(update={"shape": CLEAN.shape[::-1]})
    assert found(judged([now], [CLEAN])) == []


def test_lt008_warns_of_another_storage_format(judged) -> None:
    judgement = judged([CLEAN.model_copy(update={"encoding": "MXFP4"})], [CLEAN])
    assert (found(judgement, "warn"), judgement.exit_code) == ([("LT008", "layers.0.mlp.up")], 0)
    adapted = CLEAN.model_copy(update={"encoding": f"{CLEAN.encoding} + LoRA (rank 8, scale 2)"})
    assert found(judged([adapted], [CLEAN]), "warn") == []


def test_lt009_finds_scaled_and_flattened_layers(judged) -> None:
    was = with_spectrum(spectral_norm=10.0, stable_rank=30.0)
    assert found(judged([with_spectrum(spectral_norm=30.0, stable_rank=30.0)], [was])) == [("LT009", CLEAN.id)]
    assert found(judged([with_spectrum(spectral_norm=3.0, stable_rank=30.0)], [was])) == [("LT009", CLEAN.id)]
    assert found(judged([with_spectrum(spectral_norm=10.0, stable_rank=300.0)], [was])) == [("LT009", CLEAN.id)]
    assert found(judged([with_spectrum(spectral_norm=12.0, stable_rank=25.0)], [was])) == []
    assert found(judged([with_spectrum(spectral_norm=0.0, stable_rank=0.0)], [was])) != []


def test_lt010_judges_the_update_by_its_share_its_norm_and_its_rank(judged) -> None:
    def update(**changes) -> Update:
        return Update(**{"id": CLEAN.id, "spectral_norm": 2.0, "frobenius_norm": 4.0, "stable_rank": 4.0,
                         "relative": 0.02, **changes})  # fmt: skip

    assert found(judged([CLEAN], [CLEAN], updates=[update()])) == []
    assert found(judged([CLEAN], [CLEAN], updates=[update(relative=0.7)])) == [("LT010", CLEAN.id)]
    strict = {"LT010": {"max_spectral_norm": 1.0, "min_stable_rank": 5.0}}
    assert found(judged([CLEAN], [CLEAN], updates=[update()], rules=strict)) == [("LT010", CLEAN.id)] * 2


def test_lt011_counts_centred_traps_where_there_is_no_base(judged) -> None:
    now = [with_trap("entry", 20.0)]
    assert found(judged(now)) == [("LT011", CLEAN.id)]
    assert found(judged(now, rules={"LT011": {"max_traps": 1}})) == []
    assert found(judged([with_trap("mean_shift", 20.0)])) == []
    assert found(judged(now, now)) == []
    assert found(judged(now, now, rules={"LT011": {"when": "always"}})) == [("LT011", CLEAN.id)]


def test_unchanged_matrices_are_judged_by_nobody(judged) -> None:
    judgement = judged([with_trap("entry", 20.0)], [CLEAN], unchanged=[CLEAN.id])
    assert (judgement.exit_code, judgement.counts.unchanged, judgement.counts.measured) == (0, 1, 0)


def test_a_rule_that_is_off_finds_nothing_and_a_warning_fails_nothing(judged) -> None:
    now = [with_trap("entry", 20.0)]
    assert judged(now, [CLEAN], rules={"LT001": {"level": "off"}}).findings == ()
    warned = judged(now, [CLEAN], rules={"LT001": {"level": "warn"}})
    assert (warned.exit_code, found(warned, "warn")) == (0, [("LT001", CLEAN.id)])


@pytest.mark.parametrize("count", [1, 40, 9_398])
def test_false_alarms_to_expect_stay_within_the_policy_s(judged, count: int) -> None:
    many = [CLEAN.model_copy(update={"id": f"layers.{k}.mlp.up"}) for k in range(count)]
    chance = judged(many, many).chance
    assert (chance.trap_tests, chance.alpha_tests) == (count, count)
    assert chance.expected <= 0.01 * 1.0000001
    tail = math.erfc(chance.alpha_sigmas / math.sqrt(2))
    assert count * tail == pytest.approx(0.005)
    assert chance.trap_z >= 6.2086


def test_the_least_false_alarms_of_a_policy_give_limits_that_are_numbers(judged) -> None:
    chance = judged([CLEAN], [CLEAN], false_alarms=1e-9).chance
    assert (chance.trap_z, chance.alpha_sigmas) == pytest.approx((8.9135, 6.219), abs=1e-3)


def test_predicted_traps_are_no_test_by_chance(judged) -> None:
    other = matrix("layers.1.mlp.up", layer=1, role="up", method="measured")
    both = judged([predicted(40.0), other], [predicted(40.0), other]).chance
    assert (both.trap_tests, both.alpha_tests) == (1, 2)
    assert judged([predicted(40.0), other]).chance.trap_tests == 1


def test_tied_embeddings_meet_their_base_by_alias(judged) -> None:
    tied = matrix("embedding").model_copy(update={"aliases": ("unembedding",)})
    untied = [matrix("embedding"), matrix("unembedding")]
    assert judged(untied, [tied]).findings == ()
    assert judged([tied], [matrix("unembedding")]).findings == ()
