"""The reference: what ships, what is built of reports, and how it is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import documents

from llmtrap.audit.report import TOOL
from llmtrap.errors import TargetError, UsageError
from llmtrap.report.rarity.measures import MEASURES
from llmtrap.report.rarity.reference import (
    FEWEST_LINEAGES,
    QUANTILES,
    Reference,
    build,
    chosen_reference,
    describe,
    read_reference,
    shipped_reference,
)
from llmtrap.report.rarity.standing import Standing


def test_ten_lineages_of_several_families_ship_with_where_they_are_from() -> None:
    models = shipped_reference().models
    assert len({model.lineage for model in models}) >= 10
    assert len({model.family for model in models}) >= 5
    for model in models:
        assert model.licence
        assert model.source
        assert all("sha256:" in digest for digest in model.digests)
        assert model.digests
        for role in model.roles:
            for spread in role.measures.values():
                assert len(spread.quantiles) == len(QUANTILES)
                assert list(spread.quantiles) == sorted(spread.quantiles)


def test_a_reference_of_reports_comes_back_from_its_file(tmp_path: Path) -> None:
    made = build([describe(documents.clean()), describe(documents.trapped())], "mine", TOOL)
    path = tmp_path / "mine.json"
    path.write_text(made.model_dump_json(by_alias=True))
    assert read_reference(path) == made
    assert chosen_reference(str(path)) == made
    trapped = made.models[1]
    assert (trapped.with_traps, trapped.matrices, trapped.over, trapped.alphas) == (2, 86, 1, 85)
    down = next(role for role in trapped.roles if role.role == "mlp.down")
    assert (down.matrices, down.in_layers) == (12, True)
    assert 10 ** down.measures["max_sigmas"].quantiles[-1] == pytest.approx(196, rel=0.01)
    assert down.measures["max_sigmas"].apart == pytest.approx(1.6, abs=0.1)


def test_models_of_one_lineage_count_as_one() -> None:
    several = [describe(documents.clean(), name=f"m{n}", lineage="one") for n in range(8)]
    few = build(several, "few", TOOL)
    assert Standing(few).of("mlp.up", "kurtosis") is None
    many = build([model.model_copy(update={"lineage": model.name}) for model in several], "many", TOOL)
    known = Standing(many).of("mlp.up", "kurtosis")
    assert known is not None
    assert len(known.farthest) == 8


def test_a_role_that_few_have_is_held_against_all_layers() -> None:
    reference = shipped_reference()
    standing = Standing(reference)
    holders = {model.lineage for model in reference.models for role in model.roles if role.role == "mlp.gate"}
    assert len(holders) < FEWEST_LINEAGES
    assert standing.of("mlp.gate", "kurtosis") == standing.of("a role of none", "kurtosis")
    assert standing.of("a role of none", "kurtosis", in_layers=False) is None


def test_none_and_the_shipped_one_are_chosen_by_word() -> None:
    assert chosen_reference("none") is None
    assert chosen_reference(None) is shipped_reference()


def test_what_is_no_reference_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no such reference"):
        read_reference(tmp_path / "gone.json")
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"schema": "llmtrap.reference/1", "name": "x", "models": []}))
    with pytest.raises(TargetError, match="this is no reference of llmtrap: tool"):
        read_reference(wrong)


def test_a_reference_of_nothing_and_of_one_model_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="a reference of no model"):
        build([], "x", TOOL)
    with pytest.raises(UsageError, match="two reports of org/clean"):
        build([describe(documents.clean())] * 2, "x", TOOL)


def test_a_lineage_is_left_out_whole() -> None:
    left = shipped_reference().without("rxnfp")
    assert isinstance(left, Reference)
    assert {model.lineage for model in shipped_reference().models} - {model.lineage for model in left.models} == {
        "rxnfp"
    }


def test_every_measure_is_in_the_table() -> None:
    model = next(model for model in shipped_reference().models if model.name == "minilm-l6")
    down = next(role for role in model.roles if role.role == "mlp.down")
    assert set(down.measures) == set(MEASURES)
