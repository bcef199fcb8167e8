"""The JSON Schema of the report document, made from the models that read and write it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from llmtrap.report.document import SCHEMA, Report

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a written report (draft 2020-12): every key is always there, and no other."""
    return published_schema(Report, SCHEMA)


def published_schema(model: type[BaseModel], name: str) -> dict[str, Any]:
    """The schema of a document by its model, under the document's name."""
    schema = model.model_json_schema(mode="serialization", by_alias=True)
    return {"$schema": SCHEMA_ID, "$id": f"urn:llmtrap:{name}", **schema, "title": name}


def schema_text() -> str:
    """The schema as `llmtrap schema` prints it."""
    return json.dumps(json_schema(), indent=2) + "\n"
