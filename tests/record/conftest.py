"""Cameras and a clock that go on only together: what a session records is the same on any machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kd_edge.errors import CameraError
from kd_edge.runtime.cameras import TimeOuts
from kd_edge.types import Frame, Image
from tests.waiting import PATIENCE_SECONDS

GONE = CameraError("the cable was pulled", "frames", "plug it in")
START_NS = 5_000_000_000


class Stage:
    """The clock of a session and its cameras: who sleeps waits until all frames that are due were handed over."""

    def __init__(self) -> None:
        self.ns = START_NS
        self.changed = threading.Condition()
        self.cameras: list[PlayedCamera] = []

    def now_ns(self) -> int:
        return self.ns

    def wall_ns(self) -> int:
        return self.ns + 1_795_000_000_000_000_000

    def suspended_ns(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        with self.changed:
            self.ns += round(seconds * 1e9)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: all(c.is_idle for c in self.cameras), PATIENCE_SECONDS)


class PlayedCamera:
    """A live camera whose frames are due at set moments of the stage's clock; it can be lost and come back."""

    live, can_vanish, clock_kind = True, True, "monotonic"

    def __init__(self, stage: Stage, name: str, *, period_ms: int = 40, late_ms: int = 3, band: str = "nir",
                 shape: tuple[int, ...] = (24, 32), dtype: str = "uint8") -> None:  # fmt: skip
        self.name, self.band, self.dtype, self.channels, self.fps = name, band, dtype, len(shape) == 2 or 3, 25.0
        self.timeouts = TimeOuts(reconnect_max_ms=100)
        self.shape, self.ended = shape, False
        self.shown: list[Frame] = []
        self._stage, self._period_ns = stage, period_ms * 1_000_000
        self._next_ns = START_NS + late_ms * 1_000_000
        self._is_open = self._is_lost = self._is_reading = False
        self._rng = np.random.default_rng(len(stage.cameras))
        stage.cameras.append(self)

    @property
    def is_idle(self) -> bool:
        """Whether nothing more comes of it before the clock goes on."""
        return not self._is_open or self._is_lost or (self._is_reading and self._next_ns > self._stage.ns)

    def lose(self) -> None:
        with self._stage.changed:
            self._is_lost = True
            self._stage.changed.notify_all()

    def bring_back(self) -> None:
        with self._stage.changed:
            self._is_lost = False

    def open(self) -> None:
        with self._stage.changed:
            if self._is_lost:
                raise GONE
            missed = max(0, -((self._next_ns - self._stage.ns) // self._period_ns))
            self._is_open, self._next_ns = True, self._next_ns + missed * self._period_ns

    def read(self, timeout_seconds: float) -> Frame | None:
        with self._stage.changed:
            self._is_reading = True
            self._stage.changed.notify_all()
            self._stage.changed.wait_for(lambda: self._next_ns <= self._stage.ns or self._is_lost or not self._is_open)
            self._is_reading = False
            if self._is_lost:
                raise GONE
            if not self._is_open:
                return None
            frame = Frame(self._image(), self._next_ns, len(self.shown), self.name)
            self._next_ns += self._period_ns
            self.shown.append(frame)
            return frame

    def interrupt(self) -> None:
        self.close()

    def close(self) -> None:
        with self._stage.changed:
            self._is_open = False
            self._stage.changed.notify_all()

    def _image(self) -> Image:
        high = 256 if self.dtype == "uint8" else 65536
        return self._rng.integers(0, high, self.shape).astype(self.dtype)  # type: ignore[return-value]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "gestures"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are at work get the time they need on a busy machine."""
    monkeypatch.setattr("kd_edge.runtime.capture.STOP_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr("kd_edge.record.writer.STUCK_SECONDS", PATIENCE_SECONDS)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), thread
