"""The notebooks of docs/tutorials run from the first cell to the last, and show what they say they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"


@pytest.fixture(scope="module")
def run() -> Any:
    """The notebook, executed in a kernel of its own with this interpreter."""
    notebook = nbformat.read(TUTORIALS / "from_python.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    NotebookClient(notebook, timeout=400, kernel_name="python3").execute()
    return notebook


def shown(notebook: Any, source: str) -> dict[str, Any]:
    """What the cell that ends with this line shows last, by kind."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.endswith(source)]
    data: dict[str, Any] = cell.outputs[-1].get("data", {"text/plain": cell.outputs[-1].get("text", "")})
    return data


@pytest.mark.thorough
def test_the_report_the_frame_and_the_figure_are_shown(run: Any) -> None:
    assert "small Llama" in shown(run, "\nbefore")["text/html"]
    assert "layers.0" in shown(run, ".head()")["text/plain"]
    assert "entry [7, 11]" in shown(run, '\nplanted["layers.1.mlp.up"]')["text/plain"]
    figure = shown(run, ".plot()")["application/vnd.plotly.v1+json"]
    assert "traps" in [trace["name"] for trace in figure["data"]]


@pytest.mark.slow
def test_the_fine_tune_in_which_an_entry_grows_is_stopped(run: Any) -> None:
    words = shown(run, 'print("stopped after step", trainer.state.global_step)')["text/plain"]
    assert 10 <= int(words.rpartition(" ")[2]) < 200
    (cell,) = [cell for cell in run.cells if "trainer.state.log_history" in cell.source]
    assert "'llmtrap/new_traps': 1" in cell.outputs[-1]["data"]["text/plain"]
