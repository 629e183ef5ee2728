"""TensorRT and TensorRT-RTX: the only file that imports them, and what their messages become."""

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
        kind: Which one.
        trt: The module.
        version: Its version.
    """

    kind: Kind
    trt: Any
    version: str

    @property
    def name(self) -> str:
        """Library and version, for reports."""
        return f"{self.kind} {self.version}"


def load_library(kind: Kind) -> Library:
    """Import TensorRT or TensorRT-RTX.

    Raises:
        MissingExtraError: It is not installed.
        BrokenPackageError: It is installed and does not import, for want of one of its libraries for example.
    """
    module = import_extra(MODULES[kind], kind)
    return Library(kind, module, str(module.__version__))


def unsuited(artifact: Artifact) -> str | None:
    """Why TensorRT cannot run an artifact; None when it can."""
    if artifact.manifest.precision == "int8":
        return "its 8 bits are made for CPUs (kd-edge export --profile int8-tensorrt makes those for a GPU)"
    return None


class Messages:
    """A logger for the library, whose functions return None where they fail: the reason is in what it logs.

    Warnings go to Python's log; errors are kept, the last ones.

    Attributes:
        logger: What the library's constructors take.
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
        """The first error since it was asked last, which says most; what follows it are consequences."""
        lines = list(self._errors) or ["it does not say why"]
        self._errors.clear()
        return printable(lines[0])
