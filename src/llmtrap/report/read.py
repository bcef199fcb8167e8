"""Read a report back, and say clearly what is wrong with a file that is not one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmtrap.errors import TargetError
from llmtrap.report.document import SCHEMA, Report
from llmtrap.report.migrate import migrated

# A report of 10,000 matrices has about 30 MB; far above that it is something else, or an attack on memory.
LIMIT_BYTES = 512 * 1024 * 1024


def read_report(path: Path, limit: int = LIMIT_BYTES) -> Report:
    """Read and check one report.

    Args:
        path: a file that `llmtrap audit --json` wrote.
        limit: the most bytes to read.

    Raises:
        TargetError: there is no such file, it is too large, is not JSON or is cut short, is no report, is of another
            schema version, or does not keep to the schema. The message says which.
    """
    content = _content(path, limit)
    try:
        return Report.model_validate_json(content, strict=True)
    except ValidationError as error:
        older = migrated(content)
        if older is None:
            raise _explain(path, content, error) from error
    try:
        return Report.model_validate_json(older, strict=True)
    except ValidationError as error:
        raise _explain(path, older, error) from error


def _content(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError as error:
        raise TargetError("there is no such report", file=str(path), remedy="Check the path.") from error
    except IsADirectoryError as error:
        raise TargetError(
            "this is a folder, not a report", file=str(path), remedy="Name the JSON file in it."
        ) from error
    except OSError as error:
        raise TargetError(f"cannot be read ({error.strerror})", file=str(path)) from error
    if len(content) > limit:
        raise TargetError(
            f"over {limit:,} bytes, more than any report", file=str(path), remedy="Name a report that llmtrap wrote."
        )
    return content


def _explain(path: Path, content: bytes, error: ValidationError) -> TargetError:
    """Why a file is not a report, from the outside in: JSON at all, a report, this version, these keys."""
    file = str(path)
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as fault:
        if isinstance(fault, json.JSONDecodeError) and fault.pos >= len(fault.doc.rstrip()) > 0:
            return TargetError(
                f"the file is cut short: the document does not end by byte {len(content):,}",
                file=file,
                remedy="Write the report again.",
            )
        return TargetError("this is not JSON", file=file, remedy="Name a report that `llmtrap audit --json` wrote.")
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith("llmtrap.report/"):
        return TargetError(
            "this is JSON, but not a report of llmtrap",
            file=file,
            remedy="Name a report that `llmtrap audit --json` wrote.",
        )
    if version != SCHEMA:
        return TargetError(
            f"the report has the schema {version[:40]!r}, and this llmtrap reads {SCHEMA!r}",
            file=file,
            remedy="Audit again with this version, or use the version that wrote it.",
        )
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    return TargetError(
        f"the report does not keep to its schema at '{where}': {first['msg']}",
        file=file,
        remedy="Compare it with `llmtrap schema`.",
    )
