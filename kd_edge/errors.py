"""Exceptions for user errors, each shown as one line: what was found, what was expected, how to fix it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import ClassVar


class KdEdgeError(Exception):
    """A user error, shown as one line without a traceback.

    Args:
        found: What was found, including the value itself.
        expected: What was expected instead.
        fix: What to do next, as a sentence or a command.
    """

    exit_code: ClassVar[int] = 2
    """Exit code of the command line."""

    def __init__(self, found: str, expected: str, fix: str) -> None:
        super().__init__(found, expected, fix)
        self.found = found
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return printable(f"{self.found.rstrip('.')}. Expected {self.expected.rstrip('.')}. Fix: {self.fix}")


class UnexpectedError(KdEdgeError):
    """Code called by kd-edge (a driver or user code) raised an unexpected exception; the user's input is not at fault.

    ``__cause__`` is that exception, with its traceback. Code that raises an ``UnexpectedError`` logs the traceback at
    error level.
    """

    exit_code = 1

    def __init__(self, found: str, expected: str, cause: BaseException) -> None:
        super().__init__(found, expected, "correct what the traceback points at")
        self.__cause__ = cause


class ConfigError(KdEdgeError):
    """A recipe, profile, camera file or flag is wrong."""


class DataError(KdEdgeError):
    """A recording or data set is missing, damaged or incomplete."""


class BrokenOffError(DataError):
    """A replayed recording is damaged part-way through: labels were emitted up to that point."""

    exit_code = 1


class ArtifactError(KdEdgeError):
    """A model file is foreign, damaged, truncated or unsuitable for its use."""


class EngineError(KdEdgeError):
    """An engine was given arrays that do not fit its graph, or was used after it was closed."""


class DeviceError(ArtifactError):
    """A GPU cannot do what is requested: it is out of memory, was lost, or its driver is too old."""


class CameraError(KdEdgeError):
    """A camera is missing, does not respond, or does not deliver what the model needs."""


class BadPictureError(CameraError):
    """One picture cannot be decoded; the camera keeps running."""


class SinkError(KdEdgeError):
    """A sink cannot be opened, or a sink that must receive every label of a recording has failed."""

    exit_code = 1


class ServiceError(KdEdgeError):
    """A service cannot be installed or removed, or does not start after installation."""

    exit_code = 1


class TrainingError(KdEdgeError):
    """Training cannot start or continue; the last good state is kept."""


class RunHeldError(TrainingError):
    """A run is being trained by another process."""


class ExportError(KdEdgeError):
    """A student cannot be exported, or the exported file does not reproduce it."""


class MissingExtraError(KdEdgeError):
    """A package of an optional extra cannot be used, usually because it is not installed."""


class BrokenPackageError(MissingExtraError):
    """A package is installed but cannot be imported: partly removed, or incompatible with its environment."""


_REASON_CHARACTERS = 500


_BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)


def is_bug(error: BaseException) -> bool:
    """Whether an exception's type points to a programming error rather than to a device or library failure.

    Drivers report device failures with ``OSError``, ``RuntimeError``, ``MemoryError`` and classes defined by libraries:
    FFmpeg's ``InvalidDataError`` is a ``ValueError``, but no programming error.
    """
    return isinstance(error, _BUGS) and type(error).__module__ == "builtins"


def printable(text: str) -> str:
    r"""Escape a text so that it is safe to show on one line of a terminal or log.

    Control and format characters (escape sequences, line breaks, bidirectional marks), surrogates and unassigned code
    points are escaped (``\n``, ``\xNN``, ``\uNNNN``), so that a file's content cannot control a terminal.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    is_shown = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if is_shown else character.encode("unicode_escape").decode("ascii")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest choice, or an empty string if none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def reason(error: BaseException) -> str:
    """Return the most informative line of an error's message: the first, or the second if the first is only a heading.

    For an error without a message this is the name of its class. A long line, which may quote a whole file, is cut.
    """
    first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = others[0] if others and first.endswith(":") else first
    return line if len(line) <= _REASON_CHARACTERS else f"{line[:_REASON_CHARACTERS]}..."
