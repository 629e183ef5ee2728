"""While a stream runs, build the plan of a better engine in another process, prove it, and hand it over."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import kd_edge
from kd_edge.errors import KdEdgeError, reason
from kd_edge.runtime.recognizer import Recognizer
from kd_edge.runtime.scheduling import at_ease

log = logging.getLogger("kd_edge.runtime")

BUILD_SECONDS = 3600.0
"""A build that takes longer hangs: the largest networks take half an hour on the smallest Jetson."""
STOP_SECONDS = 5.0
NICENESS = 10
"""Of the build beside the stream's: what it takes of a core must not delay a frame."""
_TOLD_BYTES = 4000


class Upgrade:
    """Ends in a recogniser on the better engine, or in a reason why there is none.

    Nothing here waits: ``poll`` is asked between two frames.

    Args:
        engine: Key of the better engine.
        command: Builds its plan; its last line says what went wrong.
        load: Opens the model on that engine and runs its self-test; it runs in a thread of its own.

    Attributes:
        engine: As given.
        fault: Why it came to nothing; empty while it goes on.
    """

    def __init__(self, engine: str, command: Sequence[str], load: Callable[[], Recognizer]) -> None:
        self.engine, self._load = engine, load
        self.fault = ""
        self._loaded: Recognizer | None = None
        self._is_cancelled = False
        self._lock = threading.Lock()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the thread that reads it
        try:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter
                command,
                cwd=Path(kd_edge.__file__).parents[1],  # not the robot's folder, whose files Python would import first
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
            )
        except OSError as error:
            self._said.close()
            self.fault = reason(error)
            return
        at_ease(self._child.pid)  # the stream may be a real-time one, on cores of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._child.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        self._thread = threading.Thread(target=self._prepare, name=f"kd-edge {engine}", daemon=True)
        self._thread.start()

    def poll(self) -> Recognizer | None:
        """The recogniser, once, when it is ready: the caller's from then on."""
        if self._loaded is None:
            return None
        with self._lock:
            loaded, self._loaded = self._loaded, None
        return loaded

    def close(self) -> None:
        """End the build; what was loaded and never taken is closed. It takes bounded time."""
        with self._lock:
            self._is_cancelled = True
        if not hasattr(self, "_thread"):
            return
        _end(self._child)
        self._thread.join(STOP_SECONDS)
        if (left := self.poll()) is not None:
            left.close()

    def _prepare(self) -> None:
        at_ease()
        try:
            self._build_and_load()
        except Exception as error:  # a library's own; a thread's end would say nothing
            self.fault = error.found if isinstance(error, KdEdgeError) else f"{type(error).__name__}: {reason(error)}"
            log.debug("the engine cannot be prepared, here:", exc_info=error)

    def _build_and_load(self) -> None:
        with self._said:
            try:
                code = self._child.wait(BUILD_SECONDS)
            except subprocess.TimeoutExpired:
                _end(self._child)
                self.fault = f"its build has not ended after {BUILD_SECONDS / 60:.0f} minutes"
                return
            if code != 0:
                self.fault = f"its build failed: {_last_line(self._said) or f'exit code {code}'}"
                return
        if self._is_cancelled:
            return
        loaded = self._load()
        loaded.hand_over()
        with self._lock:
            if not self._is_cancelled:
                self._loaded = loaded
                return
        loaded.close()


def build_command(engine: str, artifact: str) -> list[str]:
    """What builds the plan of an engine for this machine, from an artifact alone."""
    return [sys.executable, "-m", "kd_edge", "export", str(Path(artifact).resolve()), f"--{engine}"]


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _last_line(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _TOLD_BYTES))
    lines = said.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
