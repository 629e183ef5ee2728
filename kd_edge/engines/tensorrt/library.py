"""Import of TensorRT and TensorRT-RTX (nowhere else), and handling of their messages."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Literal, NamedTuple

from kd_edge.artifact import Artifact
from kd_edge.errors import printable
from kd_edge.packages import import_extra

log = logging.getLogger("kd_edge.engines.tensorrt")

Kind = Literal["tensorrt", "tensorrt-rtx"]
MODULES: dict[Kind, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_KEPT_LINES = 20


class Library(NamedTuple):
    """One of the two libraries, imported.

    Attributes:
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        trt: The module.
        version: Its version.
    """

    kind: Kind
    trt: Any
    version: str

    @property
    def name(self) -> str:
        """Name and version for reports."""
        return f"{self.kind} {self.version}"


def load_library(kind: Kind) -> Library:
    """Import TensorRT or TensorRT-RTX.

    Raises:
        MissingExtraError: It is not installed.
        BrokenPackageError: It is installed but cannot be imported, for example because a library is missing.
    """
    module = import_extra(MODULES[kind], kind)
    return Library(kind, module, str(module.__version__))


def unsuited(artifact: Artifact) -> str | None:
    """Return why TensorRT cannot run an artifact, or None if it can."""
    if artifact.manifest.precision == "int8":
        return "its int8 is for CPUs (kd-edge export --profile int8-tensorrt makes int8 for a GPU)"
    return None


class Messages:
    """A logger for the library, whose functions return None on failure and log the reason.

    Warnings are passed to Python's log; the last errors are stored.

    Attributes:
        logger: The logger object for the library's constructors.
    """

    def __init__(self, library: Library) -> None:
        trt, errors = library.trt, deque[str](maxlen=_KEPT_LINES)

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                    errors.append(message)
                elif severity == trt.ILogger.Severity.WARNING:
                    log.info("%s: %s", library.kind, printable(message))

        self.logger: Any = Logger()
        self._errors = errors

    def why(self) -> str:
        """Return the first error since the last call; later ones are usually consequences of it."""
        lines = list(self._errors) or ["it gives no reason"]
        self._errors.clear()
        return printable(lines[0])
