"""The JSON output: it validates, comes back equal, is whole or absent, and holds nothing a terminal would obey."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from tests.support import documents

from llmtrap.errors import OutputError
from llmtrap.report.document import Report, Tool
from llmtrap.report.json import to_json, write_json
from llmtrap.report.read import read_report
from llmtrap.report.schema import json_schema, schema_text
from llmtrap.report.write import write_whole
from llmtrap.spectra.measured import Histogram

EVERY = ["clean", "trapped", "trapped_base", "over_trained", "partial", "empty", "broken", "hostile"]


@pytest.mark.parametrize("name", EVERY)
def test_every_document_validates_and_comes_back_equal(name: str, tmp_path: Path) -> None:
    report = getattr(documents, name)()
    path = tmp_path / "new folder" / "report.json"
    write_json(report, path)

    Draft202012Validator(json_schema()).validate(json.loads(path.read_text()))
    assert read_report(path) == report


def test_the_schema_is_itself_valid_and_refuses_what_is_no_report() -> None:
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    document = documents.trapped().to_json_dict()
    for change in ({"schema": "llmtrap.report/1"}, {"extra": 1}, {"matrices": None}):
        assert list(Draft202012Validator(schema).iter_errors({**document, **change})), change
    del document["summary"]
    assert list(Draft202012Validator(schema).iter_errors(document))


def test_one_matrix_a_line_and_only_ascii() -> None:
    report = documents.hostile()
    text = to_json(report)
    assert text.isascii()
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    lines = [line for line in text.splitlines() if line.startswith('    {"id"')]
    assert [json.loads(line.rstrip(","))["id"] for line in lines] == [matrix.id for matrix in report.matrices]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None, categories=None), max_size=80))
def test_any_name_survives_the_round_trip(name: str) -> None:
    report = documents.empty()
    named = report.model_copy(update={"tool": Tool(name=name.encode("utf-8", "replace").decode(), version="1")})
    assert Report.model_validate_json(to_json(named), strict=True) == named


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_cannot_hold_is_refused_when_the_document_is_made(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Histogram(edges=(0.0, value), counts=(1,))


@pytest.mark.parametrize(("edges", "counts"), [((1.0, 2.0), (1, 2)), ((2.0, 1.0), (1,)), ((), ())])
def test_a_histogram_that_cannot_be_drawn_is_refused(edges: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Histogram(edges=edges, counts=counts)


def test_an_older_report_stays_whole_when_the_disk_fills(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("the old one")
    # A limit on the size of files stands for a full disk: the kernel refuses the write in the same place.
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from llmtrap.errors import OutputError\n"
        "from llmtrap.report.write import write_whole\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_whole(Path(sys.argv[1]), b'x' * 5000)\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}: the disk is full. Free some space, or write to another place.\n"
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_of_the_target_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="this is a folder"):
        write_whole(tmp_path, b"")
    with pytest.raises(OutputError, match="a part of this path is a file"):
        write_whole(tmp_path / "file" / "report.json", b"")
    with pytest.raises(OutputError, match="loop: "):
        write_whole(tmp_path / "loop", b"")
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole(tmp_path / ("n" * 300), b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match="no permission"):
        write_whole(tmp_path / "report.json", b"")


def test_links_and_pipes_are_written_through(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    link = tmp_path / "link.json"
    link.symlink_to(real)
    write_whole(link, b"{}")
    assert link.is_symlink()
    assert real.read_bytes() == b"{}"

    code = (
        "from pathlib import Path; from llmtrap.report.write import write_whole; write_whole(Path('/dev/stdout'), b'x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"x"


def test_a_new_file_gets_the_permissions_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_whole(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode
