"""`llmtrap inspect`: parts apart, JSON for scripts, names not known with the line that would tell them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from llmtrap.cli import app

TENSORS = {
    "model.language_model.layers.0.mlp.down_proj.weight": (16, 8),
    "model.language_model.layers.0.self_attn.qkv_proj.weight": (24, 8),
    "model.visual.blocks.0.attn.qkv.weight": (24, 8),
    "model.language_model.layers.0.warp.coil.weight": (8, 8),
    "model.language_model.layers.0.norm.weight": (8,),
    "model.visual.pos_embed.weight": (30, 8),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({name: torch.ones(shape) for name, shape in TENSORS.items()}, tmp_path / "model.safetensors")
    return tmp_path


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["inspect", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_gives_the_place_of_every_matrix(folder: Path) -> None:
    shown = json.loads(run(folder, "--json", "--split-fused"))
    places = {m["id"]: (m["part"], m["layer"], m["role"], m["expert"], m["shape"]) for m in shown["matrices"]}
    assert places == {
        "layers.0.mlp.down": ("text", 0, "mlp.down", None, [16, 8]),
        "layers.0.attention.qkv": ("text", 0, "attention.qkv", None, [24, 8]),
        "vision.layers.0.attention.qkv": ("vision", 0, "attention.qkv", None, [24, 8]),
        "layers.0.warp.coil": ("text", 0, "warp.coil", None, [8, 8]),
    }
    assert shown["unknown"] == ["model.language_model.layers.0.warp.coil"]
    assert shown["notes"] == [
        "2 × attention.qkv left whole: it is not known how its parts lie, or the sizes do not agree"
    ]
    (table,) = shown["tables"]
    assert (table["id"], table["part"], table["role"], table["shape"]) == (
        "vision.position", "vision", "position", [30, 8],
    )  # fmt: skip
    assert {skipped["tensor"]: skipped["kind"] for skipped in shown["skipped"]} == {
        "model.language_model.layers.0.norm.weight": "one_dimensional",
        "model.visual.pos_embed.weight": "table",
    }


def test_a_table_groups_by_part_the_largest_first(folder: Path) -> None:
    shown = run(folder)
    rows = [line.split() for line in shown.splitlines()]
    parts = [row[0] for row in rows if row and row[0] in ("text", "vision")]
    assert parts == ["text", "vision"]
    assert ["tables", "1", "with", "240", "numbers:", "named", "and", "counted,", "not", "measured"] in rows
    assert '"warp.coil" = "ROLE"  # 1 module' in shown


def test_the_line_shown_for_an_unknown_name_makes_it_known(folder: Path) -> None:
    lines = [line.strip() for line in run(folder).splitlines()]
    pasted = lines[lines.index("[roles]") :][:2]
    family = folder / "mine.toml"
    family.write_text("\n".join(pasted).replace("ROLE", "mlp.up"))
    shown = json.loads(run(folder, "--json", "--family", family))
    assert not shown["unknown"]
    assert "layers.0.mlp.up" in {matrix["id"] for matrix in shown["matrices"]}


def test_a_part_is_selected_and_an_unknown_one_is_answered_with_those_there_are(folder: Path) -> None:
    shown = json.loads(run(folder, "--json", "--part", "vision"))
    assert [matrix["id"] for matrix in shown["matrices"]] == ["vision.layers.0.attention.qkv"]
    result = CliRunner().invoke(app, ["inspect", str(folder), "--part", "visoin"])
    assert result.exit_code == 2
    assert "The parts of this model: text, vision" in " ".join(result.stderr.split())


def test_every_matrix_keeps_its_line_in_a_pipe(folder: Path) -> None:
    lines = run(folder, "--all").splitlines()
    assert any(line.split() == [
        "vision.layers.0.attention.qkv", "model.visual.blocks.0.attn.qkv.weight", "24", "×", "8", "F32",
    ] for line in lines)  # fmt: skip
