"""Every error llmtrap raises on purpose, with the exit code each one means.

LlmtrapError                 2  the base: what happened, where, and what to do about it
├── UsageError               2  the call itself is wrong (unknown option value, bad glob, bad policy)
├── TargetError              2  the target does not exist, or is not something that can be audited
│   └── AccessError          2  it exists, but needs a token, a licence click, or a network that is away
├── CheckpointError          2  a file of the checkpoint is broken, or not what its neighbours say
│   ├── UnsafeFileError      2  reading it could run code or leave the folder (pickle, path escape)
│   └── UnsupportedError     2  a format or quantisation that llmtrap does not read (named, with what it does)
├── DeviceError              2  the device or the backend asked for is not there
├── MissingExtraError        2  a feature whose optional dependency is not installed
├── OutputError              2  a report or the journal could not be written
└── MatrixError              3  one matrix could not be measured; the audit goes on without it
"""

from __future__ import annotations


class LlmtrapError(Exception):
    """Something a user can act on: the problem, where it is, and the remedy.

    Args:
        problem: what is wrong, as one sentence without a full stop.
        file: the file concerned, as the user would name it.
        tensor: the tensor concerned.
        remedy: what to do about it, as one sentence.
    """

    exit_code = 2

    def __init__(self, problem: str, *, file: str | None = None, tensor: str | None = None, remedy: str | None = None):
        self.problem = problem
        self.file = file
        self.tensor = tensor
        self.remedy = remedy
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """One message: where, what, remedy."""
        where = ": ".join(part for part in (self.file, self.tensor) if part)
        text = f"{where}: {self.problem}" if where else self.problem
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword fields when an error crosses a process boundary."""
        return _rebuild, (type(self), self.problem, self.file, self.tensor, self.remedy)


def _rebuild(
    kind: type[LlmtrapError], problem: str, file: str | None, tensor: str | None, remedy: str | None
) -> LlmtrapError:
    return kind(problem, file=file, tensor=tensor, remedy=remedy)


class UsageError(LlmtrapError):
    """The call itself is wrong."""


class TargetError(LlmtrapError):
    """The target does not exist, or is not something that can be audited."""


class AccessError(TargetError):
    """The target exists, but a token, a licence or the network stands before it."""


class CheckpointError(LlmtrapError):
    """A file of the checkpoint is broken, or contradicts another."""


class UnsafeFileError(CheckpointError):
    """Reading the file could run code or leave the checkpoint's folder."""


class UnsupportedError(CheckpointError):
    """A format or quantisation that llmtrap does not read."""


class DeviceError(LlmtrapError):
    """The device or backend asked for is not there."""


class MissingExtraError(LlmtrapError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, feature: str, extra: str) -> MissingExtraError:
        """Say in one line what to install."""
        return cls(f"{feature} needs the extra '{extra}'", remedy=f"Install it with: pip install 'llmtrap[{extra}]'")


class OutputError(LlmtrapError):
    """A report or the journal could not be written."""


class MatrixError(LlmtrapError):
    """One matrix could not be measured; the audit goes on without it."""

    exit_code = 3
