"""The base of every document: immutable, and strict with what others wrote."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

# Documents come from others too: a number that no machine holds and a list of millions of wrong items are refused at
# once, with the first of them named.
T = TypeVar("T")
Count = Annotated[int, Field(ge=0, lt=2**63)]
Items = Annotated[tuple[T, ...], Field(fail_fast=True)]


class Model(BaseModel):
    """Base of every part: immutable. Unknown keys are refused, and so are NaN and infinity: JSON cannot hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __dir__(self) -> list[str]:
        """The fields, and what this package's classes can do: nothing of Pydantic's own."""
        ours = (kind for kind in type(self).__mro__ if kind.__module__.startswith("llmtrap."))
        methods = {name for kind in ours for name in vars(kind) if not name.startswith(("_", "model_"))}
        return sorted({*type(self).model_fields, *methods})
