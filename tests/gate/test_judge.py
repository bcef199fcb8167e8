"""Ignores, fingerprints, order and the document of a judgement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import jsonschema
import pytest
from tests.support import documents
from tests.support.documents import matrix

from llmtrap.gate.document import Judgement
from llmtrap.gate.matching import CheckpointContents, Pair, match
from llmtrap.gate.rules import RULES

NOW = [matrix(f"layers.{k}.mlp.down", layer=k, role="down", method="measured", causes=[("entry", 2.0 + k)])
       for k in range(3)]  # fmt: skip
BASE = [matrix(f"layers.{k}.mlp.down", layer=k, role="down") for k in range(3)]


def test_findings_come_worst_first(judged) -> None:
    assert [f.id for f in judged(NOW, BASE).findings] == [f"layers.{k}.mlp.down" for k in (2, 1, 0)]


def test_whether_two_sides_are_one_architecture_is_found_out_once() -> None:
    """It is asked for every gap, of which there may be one a matrix: 20,000 matrices took hours."""

    class Counted(tuple[Pair, ...]):
        passes = 0

        def __iter__(self) -> Iterator[Pair]:
            Counted.passes += 1
            return super().__iter__()

    sides = [CheckpointContents.of_report(documents.report(matrices)) for matrices in (NOW, BASE)]
    matched = match(*sides)
    counted = replace(matched, pairs=Counted(matched.pairs))
    assert [counted.same_architecture for _ in range(3)] == [True] * 3
    assert Counted.passes == 1


def test_an_ignore_covers_what_it_matches_until_it_expires(judged) -> None:
    ignore = {"rule": "LT001", "match": "layers.[01].*", "reason": "known", "expires": "2026-03-01"}
    judgement = judged(NOW, BASE, ignore=[ignore])
    assert [f.id for f in judgement.errors] == ["layers.2.mlp.down"]
    assert {f.ignored for f in judgement.ignored} == {"known"}
    assert judged(NOW, BASE, ignore=[{**ignore, "match": "*"}]).exit_code == 0
    late = judged(NOW, BASE, ignore=[{**ignore, "match": "*", "expires": "2026-02-28"}])
    assert (late.exit_code, len(late.errors)) == (1, 3)
    assert late.notes == ("ignore of LT001 for '*' expired on 2026-02-28: it holds no more",)


def test_rules_that_are_off_are_named_and_no_pass_is_given_with_all_of_them_off(judged) -> None:
    off = {"level": "off"}
    some = judged(NOW, BASE, rules={"LT001": off})
    assert (some.exit_code, some.notes) == (0, ("off in the policy: LT001 new-trap",))
    assert some.headline == "Passed. Of 3 matrices: 3 judged, 0 unchanged; nothing that the policy forbids."
    none = judged(NOW, BASE, rules=dict.fromkeys(RULES, off))
    assert (none.outcome, none.exit_code) == ("incomplete", 3)
    assert none.headline == "Not judged: the policy has every rule at level off."


def test_an_ignore_that_matches_nothing_is_said(judged) -> None:
    judgement = judged(BASE, BASE, ignore=[{"rule": "LT001", "match": "layers.9*", "reason": "gone"}])
    assert judgement.notes == ("ignore of LT001 for 'layers.9*' matches nothing: delete it",)
    assert judgement.exit_code == 0


def test_the_checkpoint_as_a_whole_can_be_ignored_by_name(judged) -> None:
    ignore = {"rule": "LT006", "match": "checkpoint", "reason": "an empty stage"}
    assert judged([], ignore=[ignore]).exit_code == 0


def test_a_fingerprint_survives_other_numbers_and_tells_findings_apart(judged) -> None:
    first, again = judged(NOW, BASE).findings, judged(NOW[:2], BASE[:2]).findings
    assert len({f.fingerprint for f in first}) == len(first)
    assert {f.fingerprint for f in again} < {f.fingerprint for f in first}
    trap = NOW[0].traps.found[0]
    stronger = trap.model_copy(update={"z": trap.z * 2, "strength": trap.strength * 2})
    changed = NOW[0].model_copy(update={"traps": NOW[0].traps.model_copy(update={"found": (stronger,)})})
    of = [f.fingerprint for f in judged([changed], BASE[:1]).findings]
    assert of == [f.fingerprint for f in first if f.id == "layers.0.mlp.down"]


@pytest.mark.parametrize("name", ["clean", "trapped", "over_trained", "partial", "empty", "broken", "hostile"])
def test_every_judgement_keeps_to_its_schema_and_is_read_back(judged, name: str) -> None:
    report = getattr(documents, name)()
    for base in (None, report, documents.trapped_base()):
        judgement = judged(report, base)
        jsonschema.validate(judgement.to_json_dict(), Judgement.model_json_schema(by_alias=True))
        assert Judgement.model_validate(judgement.to_json_dict()) == judgement


def test_the_counts_of_matrices_add_up(judged) -> None:
    for name in ("clean", "trapped", "partial", "hostile"):
        counts = judged(getattr(documents, name)(), documents.trapped_base()).counts
        parts = (counts.unchanged, counts.measured, counts.added, counts.reshaped, counts.not_compared, counts.failed)
        assert sum(parts) == counts.matrices
