"""The JSON Schema of the report document, made from the models that read and write it."""

from __future__ import annotations

import json
from typing import Any

from llmtrap.report.document import SCHEMA, Report

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a written report (draft 2020-12): every key is always there, and no other."""
    schema = Report.model_json_schema(mode="serialization", by_alias=True)
    return {"$schema": SCHEMA_ID, **schema, "title": SCHEMA}


def schema_text() -> str:
    """The schema as `llmtrap schema` prints it."""
    return json.dumps(json_schema(), indent=2) + "\n"
