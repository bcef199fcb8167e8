"""`llmtrap.audit` and `llmtrap.analyze`: every kind of target, options as keywords, the same numbers from memory."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.support.audits import without_times
from tests.support.small_checkpoint import write_small

import llmtrap
from llmtrap.audit import Event, Finished, Measured
from llmtrap.cli.audit import audit_command
from llmtrap.errors import LlmtrapError, UsageError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("call") / "model")


def tensors_of(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {name: it for file in sorted(folder.glob("*.safetensors")) for name, it in load_file(file).items()}


def measured_alike(one: llmtrap.Report, other: llmtrap.Report) -> bool:
    """Whether two reports differ in their targets' names and files at most."""
    documents = [without_times(report) for report in (one, other)]
    for document in documents:
        del document["target"]["name"], document["target"]["kind"], document["target"]["files"]
        document["matrices"].sort(key=lambda matrix: matrix["id"])
    return bool(documents[0] == documents[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_weights_in_memory_have_the_numbers_of_their_files(small: Path, workers: int) -> None:
    tensors = tensors_of(small)
    config = {"model_type": "llama", "num_attention_heads": 3, "num_hidden_layers": 2}
    report = llmtrap.audit(tensors, config=config, traps="measure", shuffles=2, workers=workers, name="small")
    assert report.target.name == "small"
    assert report.target.kind == "memory"
    assert measured_alike(report, llmtrap.audit(small, traps="measure", shuffles=2, workers=1))


def test_matrices_larger_than_a_block_reach_the_workers_whole() -> None:
    W = np.random.default_rng(0).standard_normal((1100, 1000), dtype=np.float32)
    W[1099, 999] = 50
    report = llmtrap.audit({"a.weight": W, "b.weight": W.T}, workers=2, alpha=False)
    assert [(it.traps.found[0].cause.row, it.traps.found[0].cause.column) for it in report.matrices if it.traps] == [
        (1099, 999), (999, 1099),
    ]  # fmt: skip


def test_every_option_of_the_command_line_that_says_what_to_measure_is_a_keyword() -> None:
    command, call = (set(inspect.signature(it).parameters) for it in (audit_command, llmtrap.audit))
    written = {"json", "html", "markdown", "csv", "model_card", "badge", "no_digest", "full_paths"}
    only_there = {"demo", "no_alpha", "engine", "fresh", "quiet", "verbose"}
    assert command - call == written | only_there


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alhpa": False}, "Did you mean alpha"),
        ({"no_alpha": True}, "Give alpha=False"),
        ({"traps": "all"}, "traps='all'.*auto"),
        ({"shuffles": "many"}, "shuffles='many'.*integer"),
        ({"shuffles": 0}, "at least 1"),
        ({"workers": 0}, "at least 1"),
        ({"include": 5}, "include=5"),
        ({"include": "layers.9.*"}, "matches no matrix"),
        ({"part": "vision"}, "no matrix is of the part 'vision'"),
        ({"settings": llmtrap.AuditSettings(), "alpha": False}, "alpha was given beside settings"),
        ({"journal": True}, "no journal"),
        ({"revision": "main"}, "no revision"),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_is_right(options: dict[str, Any], said: str) -> None:
    with pytest.raises(LlmtrapError, match=said):
        llmtrap.audit({"model.layers.0.mlp.up_proj.weight": np.eye(30)}, **options)


def test_options_choose_what_is_measured(small: Path) -> None:
    report = llmtrap.audit(small, alpha=False, include="layers.1.*", exclude=["*.mlp.*"], workers=1)
    assert {matrix.id for matrix in report.matrices} == {"layers.1.attention.q", "layers.1.attention.o"}
    assert all(matrix.alpha is None for matrix in report.matrices)


def test_a_function_sees_every_event_and_nothing_is_printed(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    llmtrap.audit(str(small), alpha=False, progress=events.append)
    assert sum(isinstance(event, Measured) for event in events) == 8
    assert isinstance(events[-1], Finished)
    llmtrap.audit(str(small), alpha=False)
    assert capfd.readouterr() == ("", "")


def test_one_matrix_is_measured_as_in_an_audit() -> None:
    W = np.random.default_rng(1).standard_normal((200, 120))
    W[7, 9] = 60
    found = llmtrap.analyze(W, name="mine")
    audited = llmtrap.audit({"mine": W}).matrices[0]
    assert found.alpha == audited.alpha
    assert found.traps == audited.traps
    assert found.traps is not None
    assert found.traps.found[0].cause.row == 7


@pytest.mark.parametrize("W", [np.ones(5), np.ones((2, 3, 4)), np.ones((0, 3)), "W"])
def test_what_is_no_matrix_is_refused(W: Any) -> None:
    with pytest.raises(LlmtrapError):
        llmtrap.analyze(W)


def test_weights_in_memory_are_gated_against_files_and_weights(small: Path) -> None:
    tensors = tensors_of(small)
    assert llmtrap.gate(dict(tensors), small).judgement.counts.unchanged == 8
    changed = tensors["model.layers.1.mlp.down_proj.weight"].copy()
    changed[3, 4] = 9.0
    tuned = {**tensors, "model.layers.1.mlp.down_proj.weight": changed}
    gated = llmtrap.gate(tuned, tensors)
    assert gated.judgement.exit_code == 1
    assert "LT001" in {finding.rule for finding in gated.judgement.findings}
    assert llmtrap.gate(tuned, small).judgement.findings == gated.judgement.findings


def test_a_number_given_as_a_text_is_that_number_and_no_word_is_taken_for_yes() -> None:
    weights = {"w": np.ones((60, 50), np.float32)}
    options: dict[str, Any] = {"shuffles": "3", "alpha": "no"}
    settings = llmtrap.audit(weights, progress=False, **options).settings
    assert (settings.shuffles, settings.alpha) == (3, False)


def test_what_a_notebook_shows_is_short_and_what_is_no_report_is_said_to_be_none() -> None:
    report = llmtrap.audit({"w": np.ones((60, 50), np.float32)}, progress=False, alpha=False)
    assert repr(llmtrap.gate(report, report)).startswith("<GateResult incomplete: ")
    with pytest.raises(UsageError, match=r"^an object of type str is no report\. Give what llmtrap\.audit or"):
        report.compare("r.json")  # type: ignore[arg-type]
