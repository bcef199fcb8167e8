"""The JSON output: the judgement's own document, for scripts."""

from __future__ import annotations

import json

from llmtrap.gate.document import Judgement
from llmtrap.printable import break_commands_in_json


def to_json(judgement: Judgement) -> str:
    """ASCII JSON, so that no name in a checkpoint can steer the terminal, or the CI runner, that shows the file."""
    return break_commands_in_json(json.dumps(judgement.to_json_dict(), indent=2, allow_nan=False)) + "\n"
