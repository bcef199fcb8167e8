"""What the hostile tests share: crafted files are opened the way a user would, and the whole error is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import LlmtrapError

Refused = Callable[..., LlmtrapError]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Open a folder (by default the test's own), and return the one error that must come of it."""

    def open_it(kind: type[LlmtrapError], target: Path = tmp_path) -> LlmtrapError:
        with pytest.raises(LlmtrapError) as caught:
            open_checkpoint(str(target))
        error = caught.value
        assert type(error) is kind, error.message
        assert error.file, "an error must name the file"
        assert error.remedy, "an error must say what to do"
        assert error.message.isprintable(), "no control character may reach a screen"
        assert len(error.message) < 2000
        return error

    return open_it
