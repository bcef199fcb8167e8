"""The journal: every result on disk before it counts, so that an audit can be stopped anywhere and carried on.

Append-only, one fsynced line a record. A matrix's record is found by a key that stands for its content and settings,
so that a changed file, setting or version of llmtrap is never answered from it. A line cut short by a crash is
skipped; two runs may write to one journal at once.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from platformdirs import user_cache_path
from pydantic import ValidationError

from llmtrap.audit.settings import Part
from llmtrap.checkpoint.strict_json import MAX_MEMORY, memory_of
from llmtrap.errors import LlmtrapError, OutputError, UsageError
from llmtrap.report import document
from llmtrap.systems.files import is_of_another, locked, open_file, others_may_write, read_at, sync_folder, user_id

# The plan of 160,000 matrices, the most that an audit takes, has some 50 MB.
MAX_LINE = 128 << 20
# Ten audits of so many matrices, with the spectra of each.
MAX_BYTES = 8 << 30
_ANOTHER_PLACE = "Choose another place with --journal DIR"

TaskRecord = tuple[str, str, str, int, int]


def default_folder() -> Path:
    """Where journals are kept: the user's cache folder."""
    return user_cache_path("llmtrap", appauthor=False) / "journal"


@dataclass(frozen=True)
class PlanRecord:
    """What a report needs to know beside its matrices, so that journals can be merged without the weights.

    `tasks` are [id, tensor, key, parameters, bytes] in the order of the report.
    """

    key: str
    target: document.Target
    settings: document.Settings
    skipped: tuple[document.SkippedTensor, ...]
    tasks: tuple[TaskRecord, ...]


@dataclass(frozen=True)
class BesideRecord:
    """What the tensors beside the matrices hold: those skipped, with what could not be read, and the findings.

    `digests` are those of the files, by their names; empty where none was asked for.
    """

    skipped: tuple[document.SkippedTensor, ...]
    findings: tuple[document.TensorFinding, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """One result, and when it was written down (UTC, ISO 8601)."""

    matrix: document.Matrix
    at: str


def remembered(results: Iterable[Recorded]) -> document.Remembered | None:
    """What a report says of the results that came from a journal; None where there is none."""
    times = sorted(result.at for result in results)
    return document.Remembered(matrices=len(times), oldest=times[0], newest=times[-1]) if times else None


class Journal:
    """One journal file, opened for reading back and appending."""

    def __init__(self, path: Path, *, typed: bool = False):
        self.path = path
        self._follow = typed  # a link is followed only where the user typed the whole path

    @classmethod
    def for_target(cls, folder: Path, name: str, kind: str) -> Journal:
        """The journal of a target: a readable name and a checksum of the whole one."""
        readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in Path(name).name)[:60]
        return cls(folder / f"{readable.strip('.') or 'target'}-{zlib.crc32(f'{kind}:{name}'.encode()):08x}.jsonl")

    def forget(self) -> None:
        """Drop everything recorded so far."""
        with self._explained():
            self.path.unlink(missing_ok=True)

    def results(self, wanted: set[str]) -> dict[str, Recorded]:
        """The recorded results with these keys."""
        found: dict[str, Recorded] = {}
        for record in self._records():
            key, at = record.get("key"), record.get("at")
            if record.get("kind") == "matrix" and isinstance(key, str) and key in wanted and _is_time(at):
                # A record that does not fit the document is no result: the matrix is measured again.
                with contextlib.suppress(ValidationError):
                    found[key] = Recorded(document.Matrix.model_validate(record.get("matrix")), at)
        return found

    def matrices(self, wanted: set[str]) -> dict[str, document.Matrix]:
        """The recorded matrices with these keys."""
        return {key: result.matrix for key, result in self.results(wanted).items()}

    def plans(self) -> list[PlanRecord]:
        """The plans recorded, oldest first."""
        plans = []
        for record in self._records():
            if record.get("kind") == "plan":
                with contextlib.suppress(ValidationError, KeyError, TypeError, ValueError):
                    plans.append(_plan_of(record))
        return plans

    def add_plan(self, plan: PlanRecord) -> None:
        """Record a plan, unless it is there already."""
        if all(known.key != plan.key for known in self.plans()):
            self._append(
                {
                    "kind": "plan",
                    "key": plan.key,
                    "target": plan.target.model_dump(mode="json"),
                    "settings": plan.settings.model_dump(mode="json"),
                    "skipped": [s.model_dump(mode="json") for s in plan.skipped],
                    "tasks": [list(task) for task in plan.tasks],
                }
            )

    def beside(self, plan: str) -> BesideRecord | None:
        """What the newest run of this plan found in the tensors beside the matrices; None where none came so far."""
        found = None
        for record in self._records():
            if record.get("kind") == "beside" and record.get("key") == plan:
                with contextlib.suppress(ValidationError, KeyError, TypeError, ValueError):
                    found = BesideRecord(
                        tuple(document.SkippedTensor.model_validate(s) for s in record["skipped"]),
                        tuple(document.TensorFinding.model_validate(t) for t in record["findings"]),
                        {str(name): str(digest) for name, digest in dict(record.get("digests", {})).items()},
                    )
        return found

    def parts(self, plan: str) -> set[Part]:
        """The shares of this plan that have come to their end."""
        ended = set()
        for record in self._records():
            if record.get("key") == plan and isinstance(record.get("part"), str):
                with contextlib.suppress(UsageError):
                    ended.add(Part.parse(record["part"]))
        return ended

    def add_beside(self, plan: str, beside: BesideRecord, part: Part) -> None:
        """Record what the tensors beside the matrices hold, at the end of a share of the work."""
        self._append(
            {
                "kind": "beside",
                "key": plan,
                "part": f"{part.number}/{part.of}",
                "skipped": [s.model_dump(mode="json") for s in beside.skipped],
                "findings": [t.model_dump(mode="json") for t in beside.findings],
                "digests": dict(beside.digests),
            }
        )

    def add(self, key: str, matrix: document.Matrix) -> None:
        """Record one result; it is on disk when this returns.

        Raises:
            OutputError: it could not be written; what was recorded before is intact.
        """
        now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
        self._append({"kind": "matrix", "key": key, "at": now, "matrix": matrix.model_dump(mode="json")})

    def _append(self, record: dict[str, Any]) -> None:
        body = json.dumps(record, separators=(",", ":"), allow_nan=False)
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        with self._explained():
            created = not self.path.exists()
            make_private(self.path.parent)
            file = open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600, follow=self._follow)
            try:
                self._check(os.fstat(file))
                with locked(self.path) as alone:
                    _append_line(file, line, alone=alone)
            finally:
                os.close(file)
            if created:
                sync_folder(self.path.parent)

    def _records(self) -> Iterator[dict[str, Any]]:
        with self._explained():
            try:
                descriptor = open_file(self.path, follow=self._follow)
            except FileNotFoundError:
                return
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                self._check(status)
                if status.st_size > MAX_BYTES:
                    problem = f"over {MAX_BYTES >> 30} GiB, more than any journal"
                    raise OutputError(problem, file=str(self.path), remedy="Begin anew with --fresh, or remove it")
                for line in _lines(file):
                    record = _record_of(line)
                    if record is not None:
                        yield record

    def _check(self, status: os.stat_result) -> None:
        """Refuse a file that another user may have written: its records would be believed.

        Raises:
            OutputError: it is no regular file, of another user, or may be written by others.
        """
        if not stat.S_ISREG(status.st_mode):
            problem = "this is not a regular file"
        elif is_of_another(status):
            problem = f"this journal belongs to another user (uid {status.st_uid}, and yours is {user_id()})"
        elif others_may_write(status):
            problem = "other users may write to this journal"
        else:
            return
        raise OutputError(f"{problem}, so its results are not used", file=str(self.path), remedy=_ANOTHER_PLACE)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem, remedy = f"the journal cannot be used ({error.strerror or error})", _ANOTHER_PLACE
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                problem = "the disk is full"
                remedy = "Free some space and run the same command again: it carries on from here"
            elif error.errno == errno.ELOOP:
                problem = "the journal is a link, which is not followed"
            raise OutputError(problem, file=str(self.path), remedy=remedy) from error


def _record_of(line: bytes) -> dict[str, Any] | None:
    """The record of one line; None for a line that was cut short, damaged, or is no record."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if checksum != f"{zlib.crc32(body):08x}".encode():
        return None
    if memory_of(np.frombuffer(body, np.uint8)) > MAX_MEMORY:
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, but for those that are longer than any record."""
    too_long = False
    while line := file.readline(MAX_LINE):
        ends = line.endswith(b"\n")
        if not too_long and (ends or len(line) < MAX_LINE):
            yield line
        too_long = not ends


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone; the usual one is closed to others."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
    if folder == default_folder():
        for place in (folder.parent, folder):
            status = place.stat()
            if status.st_uid == user_id() and status.st_mode & 0o077:
                place.chmod(0o700)


def _is_time(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(document.UTC_TIME, value, re.ASCII) is not None


def _append_line(file: int, line: bytes, *, alone: bool) -> None:
    """Append one line and wait until it is on disk; a failure leaves the file as it was where nobody else writes."""
    end = os.fstat(file).st_size
    last = bytearray(b"\n")
    if end and read_at(file, memoryview(last), end - 1) and last != b"\n":
        # A crash may have left half a line: it keeps its own line, and ours begins a new one.
        line = b"\n" + line
    try:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except OSError:
        if alone:
            with contextlib.suppress(OSError):
                os.ftruncate(file, end)
        raise


def _plan_of(record: dict[str, Any]) -> PlanRecord:
    return PlanRecord(
        key=str(record["key"]),
        target=document.Target.model_validate(record["target"]),
        settings=document.Settings.model_validate(record["settings"]),
        skipped=tuple(document.SkippedTensor.model_validate(s) for s in record["skipped"]),
        tasks=tuple((str(i), str(t), str(k), int(p), int(b)) for i, t, k, p, b in record["tasks"]),
    )


def open_existing(path: Path) -> Journal:
    """A journal that must be there.

    Raises:
        LlmtrapError: there is no such file.
    """
    if not path.is_file():
        problem = f"no such journal in the folder {path.absolute().parent.name or path.anchor}"
        remedy = "Give the files that audit --part named when it ended, NAME-xxxxxxxx.jsonl, or the folder of --journal"
        raise LlmtrapError(problem, file=str(path), remedy=remedy)
    return Journal(path, typed=True)
