"""An adapter's name patterns: what PEFT finds is found, and what could run for ever is not run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrap.checkpoint.patterns import MAX_STEPS, Patterns, most_steps
from llmtrap.errors import CheckpointError, UnsupportedError

PROJECTIONS = [f"model.layers.{k}.self_attn.{part}_proj" for k in range(80) for part in ("q", "k", "v", "o")]
KNOWN = [
    "q_proj", "layers.1.self_attn.q_proj", "layers.0", "self_attn.q_proj", r".*layers\.\d+\.self_attn.v_proj",
    r"layers\.(0|1|2)\.self_attn\.(q|k)_proj", "^model.layers.3.self_attn.k_proj", ".*", "(?!.*v_proj).*_proj",
    "[a-z]+_proj", "proj", "",
]  # fmt: skip


def find_all(names: list[str], modules: list[str]) -> list[object]:
    """For each module the number of the pattern that is found, or None."""
    table = {name: number for number, name in enumerate(names)}
    patterns = Patterns(table, key="rank_pattern", file="adapter_config.json", remedy="merge it")
    return [patterns.find(module, None) for module in modules]


@given(names=st.lists(st.sampled_from(KNOWN), max_size=5, unique=True), module=st.sampled_from(PROJECTIONS[:20]))
@settings(deadline=None)
def test_the_pattern_found_is_the_one_that_peft_finds(names: list[str], module: str) -> None:
    get_pattern_key = pytest.importorskip("peft.utils.other").get_pattern_key
    expected = get_pattern_key(names, module)
    assert find_all(names, [module]) == [names.index(expected) if expected in names else None]


@pytest.mark.parametrize(
    "pattern",
    [
        "a?" * 40 + "a" * 40, "(?:|)" * 60 + "b", "(ab|ab)" * 40, "(a+)+", "(a*)*b", "a*" * 30 + "b", "a{1,40}" * 20,
        "(?x:(a) # hidden\n*)b", "(?i:a)", "(?P<name>a)", "x-" * 151, r"\(?" * 40,
    ],
)  # fmt: skip
def test_a_pattern_that_may_never_end_is_not_run(pattern: str) -> None:
    with pytest.raises(UnsupportedError, match="might never end") as caught:
        find_all([pattern], ["a" * 40 + "c"])
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("pattern", ["q_(proj", "a{99999999999}", "*a", "[z-a]", "(?<=a+)b", "a**"])
def test_what_is_no_pattern_is_an_error(pattern: str) -> None:
    with pytest.raises(CheckpointError, match="is no pattern"):
        find_all([pattern], ["a"])


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        pytest.param(
            [f"[\\x00-\\uffff]x{k}" for k in range(10_000)], ["a"], id="to compile", marks=pytest.mark.thorough
        ),
        pytest.param([".*.*[^a]"], ["a." * 140 + f"a{k}" for k in range(1000)], id="to match"),
        pytest.param(["a.b"], ["a." * 400 + str(k) for k in range(30_000)], id="to look up"),
    ],
)
def test_many_may_not_take_together_what_one_may_not(names: list[str], modules: list[str]) -> None:
    with pytest.raises(UnsupportedError):
        find_all(names, modules)


def test_the_patterns_of_a_large_adapter_are_run() -> None:
    each_layer = [rf".*layers\.{k}\.self_attn\.(q|k|v|o)_proj" for k in range(80)]
    assert find_all(each_layer, PROJECTIONS) == [k for k in range(80) for _ in range(4)]
    alternatives = [r"model\.layers\.(0|1|2|3|4|5|6|7|8|9|10|11)\.self_attn\.(q|k)_proj"]
    assert find_all(alternatives, PROJECTIONS).count(0) == 24


@pytest.mark.parametrize(
    ("pattern", "more"), [("a?b", "a?b?"), ("a*b", "a*b*"), ("(a|b)", "(a|b)(a|b)"), ("a", "a{2}")]
)
def test_every_choice_counts(pattern: str, more: str) -> None:
    assert 0 < most_steps(pattern, "aaaa") < most_steps(more, "aaaa") < MAX_STEPS
