"""Read a report back, and say clearly what is wrong with a file that is not one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from pydantic import BaseModel, ValidationError

from llmtrap.checkpoint.find import MAX_MATRICES
from llmtrap.documents import DocumentError, open_document
from llmtrap.errors import TargetError
from llmtrap.json_pieces import CutShortError, PiecesError, RepeatedError, TooLargeError, pieces
from llmtrap.printable import printable
from llmtrap.report.document import SCHEMA, FailedMatrix, File, Matrix, Report, SkippedTensor, TensorFinding
from llmtrap.report.migrate import OLDER, older_kind, older_level, older_names
from llmtrap.spectra.measured import Trap

# A report of 160,000 matrices, the most that an audit takes, has about 560 MB.
LIMIT_BYTES = 1 << 30
# A matrix of a report has 3 kB, one with thousands of traps a megabyte.
LARGEST_PIECE = 4 << 20
# Pydantic keeps kilobytes of each unknown key, and a copy of the whole for each missing one: no more than so many bytes
# are checked at once.
CHECKED_AT_ONCE = 256 << 10
MOST_KEYS = 64

_ITEMS: Final[dict[tuple[str, ...], type[BaseModel]]] = {
    ("matrices",): Matrix,
    ("tensors",): TensorFinding,
    ("target", "files"): File,
    ("coverage", "skipped"): SkippedTensor,
    ("coverage", "failed"): FailedMatrix,
}

_AGAIN = "Name a report that `llmtrap audit --json` wrote."


def read_report(path: Path, limit: int = LIMIT_BYTES) -> Report:
    """Read and check one report, a matrix at a time: it takes the memory of what is kept of it, and little more.

    Args:
        path: a regular file that `llmtrap audit --json` wrote.
        limit: the most bytes to read.

    Raises:
        TargetError: there is no such file, it is too large, is not JSON or is cut short, is no report, is of another
            schema version, or does not keep to the schema. The message says which.
    """
    try:
        with open_document(path, limit, "report") as stream:
            return _Parts(path).read(stream)
    except DocumentError as error:
        remedy = None if error.remedy is None else f"{error.remedy}."
        raise TargetError(error.problem, file=str(path), remedy=remedy) from error


def schema_of(path: Path) -> str | None:
    """The schema that a JSON object names; None where the file is none, or names none ahead of its large parts."""
    try:
        with open_document(path, LIMIT_BYTES, "report") as stream:
            for where, _, piece in pieces(stream, frozenset(_ITEMS), LARGEST_PIECE):
                if where == ("schema",):
                    value = json.loads(piece)
                    return value if isinstance(value, str) else None
    except (DocumentError, ValueError, RecursionError):
        return None
    return None


class _Parts:
    """A report as it is put together: its head as JSON text, and the items of its lists, checked one by one."""

    def __init__(self, path: Path):
        self._file = str(path)
        self._head: dict[str, Any] = {}
        self._items: dict[tuple[str, ...], list[Any]] = {where: [] for where in _ITEMS}
        self._schema: str | None = None
        self._shared: dict[frozenset[str], set[str]] = {}

    def read(self, stream: BinaryIO) -> Report:
        first = stream.read(1)
        stream.seek(0)
        try:
            for where, is_item, piece in pieces(stream, frozenset(_ITEMS), LARGEST_PIECE):
                self._take(where, piece, is_item=is_item)
        except CutShortError as error:
            raise self._cut_short(error, first) from error
        except TooLargeError as error:
            raise self._too_large(error) from error
        except RepeatedError as error:
            raise self._breaks_schema(".".join(error.where), "the key is given twice") from error
        except PiecesError as error:
            raise self._no_json(stream) from error
        return self._report()

    def _take(self, where: tuple[str, ...], piece: bytes, *, is_item: bool) -> None:
        if where == ("schema",):
            self._schema = self._version(piece)
        if is_item:
            found = self._items[where]
            if len(found) >= MAX_MATRICES:
                raise self._breaks_schema(".".join(where), f"over {MAX_MATRICES:,} items, more than any report has")
            found.append(self._checked(_ITEMS[where], piece, (*where, str(len(found)))))
        elif len(where) == 2:
            self._head.setdefault(where[0], {})[where[1]] = piece
        elif piece == b"{}" and where[0] in ("target", "coverage"):
            self._head[where[0]] = {}
        else:
            self._head[where[0]] = piece

    def _report(self) -> Report:
        """The head checked with empty lists, and then the lists put in."""
        if self._schema is None:
            raise TargetError("this is JSON, but not a report of llmtrap", file=self._file, remedy=_AGAIN)
        if self._schema == OLDER:
            self._migrate()
        members = {
            key: value if isinstance(value, bytes) else _object(value) for key, value in sorted(self._head.items())
        }
        head = self._checked(Report, _object(members), ())
        target = head.target.model_copy(update={"files": tuple(self._items["target", "files"])})
        lists = {name: tuple(self._items["coverage", name]) for name in ("skipped", "failed")}
        return head.model_copy(
            update={
                "target": target,
                "coverage": head.coverage.model_copy(update=lists),
                "matrices": tuple(self._items["matrices",]),
                "tensors": tuple(self._items["tensors",]),
            }
        )

    def _migrate(self) -> None:
        """Add what the present schema asks for, and no claim that the older report did not make."""
        skipped = self._items["coverage", "skipped"]
        kinds = [older_kind(item.tensor, item.reason) for item in skipped]
        self._items["coverage", "skipped"] = [
            item.model_copy(update={"kind": kind}) for item, kind in zip(skipped, kinds, strict=True)
        ]
        self._head["schema"] = json.dumps(SCHEMA).encode()
        self._items["matrices",] = older_names(self._items["matrices",], self._family())
        try:
            summary = json.loads(self._head.get("summary", b"{}"))
        except (ValueError, RecursionError):
            return  # the check of the head says what is wrong with it
        if isinstance(summary, dict):
            unknown = "unmeasured" in kinds or bool(self._items["coverage", "failed"])
            summary["level"] = older_level(summary, unknown=unknown)
            self._head["summary"] = json.dumps(summary).encode()

    def _family(self) -> str:
        """What the report calls the model's family; empty where it is no text, which the check of the head says."""
        try:
            family = json.loads(self._head["target"]["family"])
        except (KeyError, TypeError, ValueError, RecursionError):
            return ""
        return family if isinstance(family, str) else ""

    def _checked(self, model: type[Checked], piece: bytes, where: tuple[str, ...]) -> Checked:
        """One part against its schema."""
        if len(piece) > CHECKED_AT_ONCE:
            if model is not Matrix:
                raise self._breaks_schema(".".join(where), "larger than this part of any report")
            return self._with_many_traps(piece, where)  # type: ignore[return-value]
        try:
            return self._lean(model.model_validate_json(piece, strict=True))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            if first["type"] == "json_invalid":
                raise self._not_json() from None
            place = ".".join(str(part) for part in (*where, *first["loc"]))
            raise self._breaks_schema(place, first["msg"]) from None

    def _with_many_traps(self, piece: bytes, where: tuple[str, ...]) -> Matrix:
        """A matrix that is large: its traps are checked one by one, and without them it must be small."""
        try:
            matrix = json.loads(piece, object_pairs_hook=_few_keys)
        except _KeysError:
            raise self._breaks_schema(".".join(where), f"an object has over {MOST_KEYS} keys") from None
        except (ValueError, RecursionError):
            raise self._not_json() from None
        traps = matrix.get("traps") if isinstance(matrix, dict) else None
        found = traps.get("found") if isinstance(traps, dict) else None
        if not isinstance(traps, dict) or not isinstance(found, list):
            raise self._breaks_schema(".".join(where), "larger than any matrix without traps")
        traps["found"] = []
        rest = self._checked_text(Matrix, matrix, where)
        checked = [self._checked_text(Trap, trap, (*where, "traps", "found", str(n))) for n, trap in enumerate(found)]
        assert rest.traps is not None  # noqa: S101 - it was an object, and kept to its schema
        return rest.model_copy(update={"traps": rest.traps.model_copy(update={"found": tuple(checked)})})

    def _checked_text(self, model: type[Checked], value: object, where: tuple[str, ...]) -> Checked:
        text = json.dumps(value).encode()
        if len(text) > CHECKED_AT_ONCE:
            raise self._breaks_schema(".".join(where), "larger than this part of any report")
        return self._checked(model, text, where)

    def _lean(self, model: Checked) -> Checked:
        """The same in half the memory: attributes set one by one share their names among all models of a kind.

        Pydantic gives each model a dictionary of its own, and a set of the fields that were given; these take more
        than the values.
        """
        kept = object.__new__(type(model))
        for name, value in model.__dict__.items():
            if isinstance(value, BaseModel):
                value = self._lean(value)  # noqa: PLW2901
            elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
                value = tuple(map(self._lean, value))  # noqa: PLW2901
            object.__setattr__(kept, name, value)
        fields = model.__pydantic_fields_set__
        object.__setattr__(kept, "__pydantic_fields_set__", self._shared.setdefault(frozenset(fields), fields))
        object.__setattr__(kept, "__pydantic_extra__", None)
        object.__setattr__(kept, "__pydantic_private__", None)
        return kept

    def _version(self, piece: bytes) -> str | None:
        try:
            version = json.loads(piece)
        except (ValueError, RecursionError):
            raise self._not_json() from None
        if not isinstance(version, str) or not version.startswith("llmtrap.report/"):
            return None
        if version not in (SCHEMA, OLDER):
            raise TargetError(
                f"the report has the schema {printable(version, 40)!r}, and this llmtrap reads {SCHEMA!r}",
                file=self._file,
                remedy="Audit again with this version, or use the version that wrote it.",
            )
        return version

    # -- what a file is that is no report --------------------------------------------------------------------------

    def _cut_short(self, error: CutShortError, first: bytes) -> TargetError:
        if not first:
            return self._not_json()
        problem = f"the file is cut short: the document does not end by byte {error.size:,}"
        return TargetError(problem, file=self._file, remedy="Write the report again.")

    def _too_large(self, error: TooLargeError) -> TargetError:
        if self._schema is None:
            return TargetError("this is no report of llmtrap", file=self._file, remedy=_AGAIN)
        return self._breaks_schema(".".join(error.where), "larger than this part of any report")

    def _no_json(self, stream: BinaryIO) -> TargetError:
        """JSON of another kind, or no JSON at all; where it is large that is not found out."""
        stream.seek(0)
        content = stream.read(CHECKED_AT_ONCE + 1)
        try:
            if len(content) > CHECKED_AT_ONCE:
                return TargetError("this is no report of llmtrap", file=self._file, remedy=_AGAIN)
            json.loads(content)
            return TargetError("this is JSON, but not a report of llmtrap", file=self._file, remedy=_AGAIN)
        except (ValueError, RecursionError):
            pass
        return self._not_json()

    def _not_json(self) -> TargetError:
        return TargetError("this is not JSON", file=self._file, remedy=_AGAIN)

    def _breaks_schema(self, where: str, problem: str) -> TargetError:
        return TargetError(
            f"the report does not keep to its schema at '{printable(where, 200)}': {printable(problem, 300)}",
            file=self._file,
            remedy="Compare it with `llmtrap schema`.",
        )


Checked = TypeVar("Checked", bound=BaseModel)


def _object(members: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(json.dumps(key).encode() + b":" + value for key, value in members.items()) + b"}"


class _KeysError(Exception):
    """An object has more keys than any of a report."""


def _few_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_KEYS:
        raise _KeysError
    return dict(pairs)
