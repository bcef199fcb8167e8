"""What people will meet: one message with the place and the remedy, the exit code, and no traceback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.support.disks import tiny_disk
from tests.support.small_checkpoint import write_small

from llmtrap.cli.blame import from_environment
from llmtrap.spectra.backends import cuda_device_count


def refused(result: Any, *words: str, code: int = 2) -> str:
    """Check that a command ended with one message in these words; the message."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("llmtrap: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    assert result.exit_code == code
    for word in words:
        assert word in lines[0]
    # Where, what and the remedy are sentences of their own
    assert re.search(r"[^.]\. [A-Z]|: [^.]+\. [A-Za-z]", lines[0]), lines[0]
    return lines[0]


# -- targets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["audit", "inspect"])
def test_no_such_path(invoke: Any, command: str) -> None:
    refused(invoke(command, "./no/such/place"), "no/such/place: no such")


def test_no_target(invoke: Any) -> None:
    refused(invoke("audit"), "no target given", "llmtrap audit --demo")


def test_an_empty_folder(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(invoke("audit", tmp_path / "empty"), "empty: no weights here", "safetensors")


def test_a_file_cut_short(invoke: Any, small: Path) -> None:
    (shard,) = small.glob("*.safetensors")
    os.truncate(shard, shard.stat().st_size - 10)
    refused(invoke("audit", small), shard.name, "model.layers.0.", "cut short", "fetch it again")


def test_a_missing_shard(invoke: Any, tmp_path: Path) -> None:
    folder = write_small(tmp_path / "two", layers=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(
        invoke("audit", folder),
        "model-00002-of-00002.safetensors: the shard that model.safetensors.index.json names is missing",
        "Fetch the missing file",
    )


def test_an_unknown_quantisation(invoke: Any, small: Path) -> None:
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "foo-bar"}
    (small / "config.json").write_text(json.dumps(config))
    refused(invoke("audit", small), "config.json: the quantisation 'foo-bar'", "before it was quantised")


def test_a_pickle(invoke: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    # Were it loaded, it would write a file
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(tmp_path / "ran") + b"'\ntR.")
    for target in (folder, folder / "pytorch_model.bin"):
        refused(invoke("audit", target), "pytorch_model.bin", "pickle", "could run code", "not run and never is")
    assert not (tmp_path / "ran").exists()


# -- what was asked for -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a GPU here")
def test_no_gpu_where_one_was_asked_for(invoke: Any, small: Path) -> None:
    if find_spec("torch") is None:
        refused(invoke("audit", small, "--device", "cuda"), "pip install 'llmtrap[cuda12]'")
    else:
        refused(invoke("audit", small, "--device", "cuda"), "CUDA device 0", "none is there", "--device cpu")


@pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is installed")
def test_a_missing_extra(invoke: Any, small: Path) -> None:
    refused(invoke("audit", small, "--backend", "cupy"), "needs the extra 'cuda12'", "pip install 'llmtrap[cuda12]'")


def test_ray_that_is_not_installed(invoke: Any, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_spec
    module = sys.modules["llmtrap.audit.executors.ray"]
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "ray" else real(name))
    refused(invoke("audit", small, "--engine", "ray"), "--engine ray needs the extra 'ray'", "'llmtrap[ray]'")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--shuffles", "0", "--shuffles must be at least 1"),
        ("--workers", "0", "--workers must be at least 1"),
        ("--part", "4/3", "there is no part 4/3"),
        ("--workers", "9" * 400, "--workers must be at most 4,096"),
        ("--stall-timeout", "inf", "--stall-timeout must be more than 0"),
        ("--seed", "9" * 400, "the seed 9"),
        ("--device", "tpu", "unknown device 'tpu'"),
        ("--device", "cuda:²", "unknown device 'cuda:²'"),
        ("--device", "cuda:" + "9" * 5_000, "unknown device 'cuda:9"),
    ],
)
def test_values_that_mean_nothing(invoke: Any, small: Path, option: str, value: str, words: str) -> None:
    refused(invoke("audit", small, option, value), words)


@pytest.mark.parametrize("arguments", [["--traps", "maybe"], ["--nonsense"], ["--seed", "x"], ["--engine", "slurm"]])
def test_options_that_do_not_exist(invoke: Any, small: Path, arguments: list[str]) -> None:
    result = invoke("audit", small, *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
    assert "Traceback" not in result.output


def test_a_demo_takes_no_folder(invoke: Any, small: Path) -> None:
    refused(invoke("audit", small, "--demo"), "there is no demo", "gpt-oss")


# -- other commands ---------------------------------------------------------------------------------------------------


def test_a_journal_or_report_that_is_not_there(invoke: Any) -> None:
    refused(invoke("merge", "gone.jsonl"), "gone.jsonl: no such journal")
    refused(invoke("report", "gone.json"), "gone.json: there is no such report")
    refused(invoke("report"), "nothing to show")


def test_journals_that_are_no_parts_of_one_audit(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("nothing\n")
    refused(invoke("merge", tmp_path / "a.jsonl"), "a.jsonl", "not parts of one audit", "same llmtrap version")


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk without a free byte."""
    with tiny_disk(tmp_path / "disk") as place:
        with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        yield place


def test_disk_full_while_writing_the_report(invoke: Any, report: Path, full_disk: Path) -> None:
    refused(invoke("report", report, "--html", full_disk / "r.html"), f"{full_disk}/r.html: the disk is full", "Free")
    assert [path.name for path in full_disk.iterdir()] == ["filler"]


def test_disk_full_at_the_end_of_an_audit_loses_no_result(
    invoke: Any, small: Path, full_disk: Path, tmp_path: Path
) -> None:
    command = ("audit", small, "--traps", "certify", "--workers", "1", "--journal", tmp_path / "j", "--json")
    refused(invoke(*command, full_disk / "r.json"), "r.json: the disk is full")

    again = invoke(*command, tmp_path / "r.json")
    assert again.exit_code == 0
    assert "0 matrices to measure" in again.stderr


def test_a_place_that_cannot_be_written(invoke: Any, report: Path) -> None:
    refused(invoke("report", report, "--html", report / "r.html"), "r.html")


# -- exit codes and --verbose -----------------------------------------------------------------------------------------


def test_a_matrix_that_fails_is_named_and_the_rest_reported(invoke: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.standard_normal((2, 64, 64))
    bad[3, 4] = 1e200
    save_file({"good.weight": good, "bad.weight": bad}, tmp_path / "m.safetensors")
    result = invoke("audit", tmp_path / "m.safetensors", "--json", "r.json", "--workers", "1")

    assert result.exit_code == 3
    assert "failed: bad: the squares of its entries leave the range of float64" in result.stderr
    document = json.loads(Path("r.json").read_text())
    assert [m["id"] for m in document["matrices"]] == ["good"]
    assert [f["id"] for f in document["coverage"]["failed"]] == ["bad"]


def test_verbose_shows_the_traceback_before_the_message(invoke: Any, small: Path) -> None:
    (shard,) = small.glob("*.safetensors")
    shard.unlink()
    result = invoke("audit", small, "--verbose")

    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.splitlines()[-1].startswith("llmtrap: ")


def test_a_fault_of_llmtrap_is_called_one(invoke: Any, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("llmtrap.checkpoint.open_checkpoint", broken)
    refused(invoke("inspect", small), "ZeroDivisionError: oh", "fault in llmtrap", "--verbose")


def test_a_pattern_that_matches_nothing(invoke: Any, small: Path) -> None:
    refused(invoke("audit", small, "--include", "*q_prj*"), "--include *q_prj*", "matches no matrix", "attention.q")
    refused(invoke("inspect", small, "--include", "*q_prj*"), "--include *q_prj*", "attention.q")


def test_an_exclude_that_matches_nothing_is_a_warning(invoke: Any, small: Path) -> None:
    result = invoke("audit", small, "--exclude", "*q_prj*", "--no-alpha", "--json", "r.json")
    assert result.exit_code == 0
    assert "warning: --exclude *q_prj* matches no matrix of this checkpoint" in result.stderr


def test_an_audit_of_no_matrix_is_done_in_part_and_writes_its_report(invoke: Any, tmp_path: Path) -> None:
    save_file({"embeddings": np.zeros((500, 64), np.int8)}, tmp_path / "static.safetensors")
    result = invoke("audit", tmp_path / "static.safetensors", "--json", "r.json", "--quiet")
    assert result.exit_code == 3
    document = json.loads(Path("r.json").read_text())
    assert document["summary"]["level"] == "nothing_measured"
    assert document["coverage"]["counts"]["unmeasured"] == {"count": 1, "parameters": 32000, "bytes": 32000}
    (line,) = result.stderr.splitlines()
    assert line.startswith("llmtrap: Nothing measured: No matrix was measured, so nothing can be said. 0 of 0 matrices")


def test_broken_values_end_an_audit_in_part_and_quiet_says_so_in_a_line(invoke: Any, tmp_path: Path) -> None:
    weights = np.ones((64, 48), np.float32)
    weights[3, 4] = np.nan
    save_file({"layers.0.mlp.up_proj.weight": weights}, tmp_path / "nan.safetensors")
    result = invoke("audit", tmp_path / "nan.safetensors", "--json", "r.json", "--quiet", "--traps", "certify")
    assert (result.exit_code, result.stdout) == (3, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("llmtrap: Broken values: ")


def test_broken_values_beside_the_matrices_end_an_audit_in_part_too(invoke: Any, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
    norm = np.array([1, np.nan, 1], np.float32)
    save_file({"layers.0.mlp.up_proj.weight": weights, "norm.weight": norm}, tmp_path / "nan.safetensors")
    result = invoke("audit", tmp_path / "nan.safetensors", "--json", "r.json", "--quiet", "--traps", "certify")
    assert (result.exit_code, result.stdout) == (3, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("llmtrap: Broken values: 1 tensor beside the matrices holds NaN or infinite values.")


@pytest.mark.parametrize(("option", "value"), [("workers", "abc"), ("shuffles", "0")])
def test_a_value_of_the_environment_is_blamed_on_its_variable(
    invoke: Any, small: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    variable = f"LLMTRAP_{option.upper()}"
    monkeypatch.setenv(variable, value)
    result = invoke("audit", small)
    assert result.exit_code == 2
    assert f"(here the environment says so: {variable})" in " ".join(result.stderr.split())
    assert from_environment(f"--{option} must be", ["audit", f"--{option}={value}"]) == ""


@pytest.mark.parametrize(("command", "module"), [("verify", "weightwatcher"), ("calibrate", "accelerate")])
def test_an_extra_is_looked_for_before_the_work_is_announced(
    invoke: Any, small: Path, monkeypatch: pytest.MonkeyPatch, command: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = invoke(*([command, small] if command == "verify" else [command, "--preset", "quick"]))
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "needs the extra" in line
    assert not Path("llmtrap-reports").exists()


def test_weights_left_out_end_an_audit_in_part(invoke: Any, small: Path) -> None:
    (shard,) = small.glob("*.safetensors")
    save_file({**load_file(shard), "table": np.zeros((500, 64), np.int8)}, shard)
    for index in small.glob("*.index.json"):
        index.unlink()
    result = invoke("audit", small, "--no-alpha", "--json", "r.json")
    assert result.exit_code == 3
    assert "Partly measured" in result.stdout
    assert "not measured\ttable" in result.stdout
