"""Every mistake a user can make is one readable line: what was found, what was expected, how to fix it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import ClassVar


class KdEdgeError(Exception):
    """A user error: shown as one line without a traceback.

    Args:
        found: What was there, with the value itself.
        expected: What would have been right.
        fix: The next thing to do, as a sentence or a command.
    """

    exit_code: ClassVar[int] = 2
    """What the command line ends with."""

    def __init__(self, found: str, expected: str, fix: str) -> None:
        super().__init__(found, expected, fix)
        self.found = found
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return printable(f"{self.found.rstrip('.')}. Expected {self.expected.rstrip('.')}. Fix: {self.fix}")


class UnexpectedError(KdEdgeError):
    """Code that kd-edge calls, a driver's or one's own, raised what it should not: no mistake in what was asked for.

    Its ``__cause__`` is that exception, with the traceback; whoever makes one logs that, at error level.
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
    """A recording that is replayed is damaged after frames were handed over: labels up to there were given."""

    exit_code = 1


class ArtifactError(KdEdgeError):
    """A model file is foreign, damaged, truncated or does not fit its use."""


class EngineError(KdEdgeError):
    """An engine was given arrays its graph does not take, or was used after it was closed."""


class DeviceError(ArtifactError):
    """A GPU does not do what it is asked for: out of memory, lost, or its driver too old."""


class CameraError(KdEdgeError):
    """A camera is not there, does not answer, or delivers something else than the model needs."""


class BadPictureError(CameraError):
    """One picture cannot be decoded; the camera goes on."""


class SinkError(KdEdgeError):
    """A sink cannot be opened, or one that must take every label of a recording has broken."""

    exit_code = 1


class ServiceError(KdEdgeError):
    """A service cannot be installed or removed, or is installed and does not start."""

    exit_code = 1


class TrainingError(KdEdgeError):
    """Training cannot start or go on; the last good state is kept."""


class RunHeldError(TrainingError):
    """A run is being trained by another process."""


class ExportError(KdEdgeError):
    """A student cannot be exported, or the exported file does not reproduce it."""


class MissingExtraError(KdEdgeError):
    """A package of an optional extra cannot be used, most often because it is not installed."""


class BrokenPackageError(MissingExtraError):
    """A package is installed and cannot be imported: half removed, or not fit for this machine or its neighbours."""


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
    """Whether an exception is of a kind that a mistake in a program raises, and neither a device nor a library's own.

    ``OSError``, ``RuntimeError``, ``MemoryError`` and every class that a library has made are what drivers raise of
    devices: FFmpeg's ``InvalidDataError`` is a ``ValueError``, and no mistake of anybody's program.
    """
    return isinstance(error, _BUGS) and type(error).__module__ == "builtins"


def printable(text: str) -> str:
    r"""Text for a terminal or a log, on one line.

    Control and format characters (escape sequences, line breaks, bidirectional marks), surrogates and code points
    without a character are escaped (``\n``, ``\xNN``, ``\uNNNN``): what a file says must not steer a terminal.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    is_shown = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if is_shown else character.encode("unicode_escape").decode("ascii")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest choice, or an empty string when none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def reason(error: BaseException) -> str:
    """The line of an error's message that says most: the first one, or what follows it where it is but a heading.

    An error without a message is named by its class; a long line, which may quote a whole file, is cut.
    """
    first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = others[0] if others and first.endswith(":") else first
    return line if len(line) <= _REASON_CHARACTERS else f"{line[:_REASON_CHARACTERS]}..."
