"""A whole ablation on small models: a planted entry is told from ordinary ones, and every output says so."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from rich.console import Console
from safetensors.torch import load_file, save_file
from tests.ablation.conftest import save_model
from tokenizers import Tokenizer, models, pre_tokenizers

import llmtrap
from llmtrap.ablation.document import AblationReport
from llmtrap.ablation.outputs import show, to_html, to_json, to_markdown
from llmtrap.ablation.read import read_ablation, with_activity
from llmtrap.ablation.run import AblationSettings, ablate
from llmtrap.checkpoint import open_checkpoint
from llmtrap.cli.schema import DocumentName, schema_of
from llmtrap.errors import TargetError, UsageError

PLANTED = ("layers.1.mlp.down", 3, 5)


@pytest.fixture
def planted(llama: Path) -> Path:
    """A Llama with one huge entry, and a tokenizer of 130 words."""
    stored = load_file(llama / "model.safetensors")
    for name, tensor in stored.items():
        # Norms of 1 and a sharp head, as trained models have: with random ones nothing reaches the predictions
        stored[name] = (
            torch.ones_like(tensor) if "norm" in name else 20 * tensor if name == "lm_head.weight" else tensor
        )
    stored["model.layers.1.mlp.down_proj.weight"][3, 5] = 40.0
    save_file(stored, llama / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer(models.WordLevel({f"w{k}": k for k in range(130)}, unk_token="w0"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(llama / "tokenizer.json"))
    return llama


def audit(folder: Path) -> llmtrap.Report:
    return llmtrap.audit(str(folder), llmtrap.AuditSettings(alpha=False, traps="measure"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    drawn = torch.randint(130, (600,), generator=torch.Generator().manual_seed(3)).tolist()
    path.write_text(" ".join(f"w{k}" for k in drawn))
    return path


def test_a_planted_entry_is_active_and_its_neighbours_are_not(planted: Path, text: Path) -> None:
    report = ablate(open_checkpoint(str(planted)), audit(planted), AblationSettings(text=text, top=2))
    found = {(c.matrix, c.row, c.column): c for c in report.candidates}
    entry = found[PLANTED]
    assert "trap" in entry.origins
    assert entry.label in ("active", "needed", "harmful")
    assert entry.limits is not None
    assert entry.limits > 1
    assert entry.control_floor is not None
    assert entry.j is not None
    assert entry.kl is not None
    assert entry.j.value > 10 * min(c.effect for c in entry.controls)
    assert {c.kind: c.draws for c in entry.controls} == {"elsewhere": 2, "same_row": 1, "same_column": 1}
    assert report.settings.text == "text.txt"
    # The same seed gives the same document but for the time
    again = ablate(open_checkpoint(str(planted)), audit(planted), AblationSettings(text=text, top=2))
    assert again.model_copy(update={"seconds": 0.0}) == report.model_copy(update={"seconds": 0.0})


def test_every_output_has_verdict_entry_and_label(planted: Path, tmp_path: Path) -> None:
    report = ablate(open_checkpoint(str(planted)), audit(planted), AblationSettings(top=1))
    document = json.loads(to_json(report))
    Draft202012Validator(schema_of(DocumentName.ABLATION)).validate(document)
    assert AblationReport.model_validate(document) == report
    for output in (to_html(report), to_markdown(report)):
        assert report.verdict in output
        assert "[3, 5]" in html.unescape(output)
        assert "layers.1.mlp.down" in output
    assert report.nll is not None
    assert "<script" not in to_html(report)
    (found,) = report.candidates
    for width, columns in ((80, 4), (200, 8)):
        shown = on_console(report, width=width, force_terminal=True)
        row = next(line for line in shown.splitlines() if line.startswith("layers.1.mlp.down"))
        assert len(re.split(r"\s{2,}", row.strip())) == columns
        assert str(found.label) in row
        assert all(len(line) <= width for line in shown.splitlines() if "layers" in line)
    piped = on_console(report, width=80, force_terminal=False)
    header, row = (line.split("\t") for line in piped.splitlines() if "\t" in line)
    assert header[0] == "matrix"
    assert (row[0], row[-1]) == ("layers.1.mlp.down", str(found.label))
    assert len(header) == len(row) == 8


def on_console(report: AblationReport, *, width: int, force_terminal: bool) -> str:
    """What a console of this kind shows."""
    file = io.StringIO()
    show(report, Console(file=file, width=width, force_terminal=force_terminal, color_system=None))
    return file.getvalue()


def test_an_audits_report_takes_the_labels_in(planted: Path, tmp_path: Path) -> None:
    report = ablate(open_checkpoint(str(planted)), audit(planted), AblationSettings(top=1))
    (tmp_path / "a.json").write_text(to_json(report))
    merged = with_activity(audit(planted), read_ablation(tmp_path / "a.json"))
    matrix = next(m for m in merged.matrices if m.id == PLANTED[0])
    assert matrix.traps is not None
    assert matrix.traps.found[0].cause.activity == report.candidates[0].label
    other = merged.model_copy(update={"target": merged.target.model_copy(update={"name": "another"})})
    with pytest.raises(UsageError, match="the report of another"):
        with_activity(other, report)
    with pytest.raises(TargetError, match="no ablation of llmtrap"):
        read_ablation(_written(tmp_path / "b.json", "{"))
    with pytest.raises(TargetError, match="no ablation of llmtrap"):
        read_ablation(_written(tmp_path / "c.json", "{}"))


def test_the_papers_replacement_stands_beside_its_noise_alone(planted: Path) -> None:
    report = ablate(open_checkpoint(str(planted)), audit(planted), AblationSettings(top=1, paper=True))
    paper = report.candidates[0].paper
    assert paper is not None
    assert report.candidates[0].j is not None
    # So far beyond the limit the component is the entry: removing it is ablating the entry
    assert paper.removed == pytest.approx(report.candidates[0].j.value, rel=0.5)
    assert paper.noise_alone > 0


def test_an_encoder_has_changes_and_no_label(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    save_model("bert", folder)
    report = ablate(open_checkpoint(str(folder)), audit(folder), AblationSettings(matrices=("*down",), top=2))
    assert "no label" in report.verdict or report.candidates == ()
    assert all(c.label is None and c.j is None for c in report.candidates)


def test_without_a_tokenizer_a_text_is_refused_and_nothing_is_called_needed(llama: Path, text: Path) -> None:
    with pytest.raises(TargetError, match=r"no tokenizer\.json"):
        ablate(open_checkpoint(str(llama)), audit(llama), AblationSettings(text=text))
    report = ablate(open_checkpoint(str(llama)), audit(llama), AblationSettings(matrices=("layers.0.mlp.down",), top=1))
    assert all(c.nll_change is None and c.label not in ("needed", "harmful") for c in report.candidates)


def _written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path
