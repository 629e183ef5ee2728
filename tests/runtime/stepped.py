"""A stream whose capture thread and test take turns, on a clock moved by hand: one result on any machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from kd_edge.engines import Binding
from kd_edge.errors import CameraError
from kd_edge.runtime import Recognizer
from kd_edge.runtime.capture import Capture
from kd_edge.runtime.feed import Feed, Feeds
from kd_edge.runtime.mailbox import Captured
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Frame, Prediction
from tests.waiting import PATIENCE_SECONDS

from .conftest import HandClock, TinyStep, tiny_manifest

GONE = CameraError("the cable was pulled", "frames", "plug it in")


class Silence(Exception):
    """There is no prediction now, and none is due."""


class Turns:
    """Only one of the two runs: the test, or the capture thread until it waits for the camera or between attempts."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.reading = False
        self.pauses: list[float] = []
        self._wakes_ns = 0
        self._waits = threading.Semaphore(0)
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def wait(self, seconds: float, *, reading: bool) -> Any:
        """The capture thread's turn ends; what it is given when the next one begins, None when its time is over."""
        self.reading, self._wakes_ns = reading, self.clock.ns + round(seconds * 1e9)
        self._waits.release()
        return self._given.get()

    def began(self) -> None:
        assert self._waits.acquire(timeout=PATIENCE_SECONDS)

    def give(self, item: Any) -> None:
        """One turn of the capture thread."""
        self._given.put(item)
        self.began()

    def let_go(self) -> None:
        """The stream closes: nobody waits any more."""
        self._given.put(None)

    def advance(self, ms: float) -> None:
        """Let time pass; the capture thread has a turn whenever its waiting is over."""
        end_ns = self.clock.ns + round(ms * 1e6)
        while self._wakes_ns <= end_ns:
            self.clock.ns = max(self.clock.ns, self._wakes_ns)
            self.give(None)
        self.clock.ns = max(self.clock.ns, end_ns)


class SteppedCamera:
    """Delivers what its test gives it: frames, exceptions; ``open_errors`` are raised by its next openings."""

    name, band, dtype, channels, fps = "stepped", "nir", "uint8", 1, 100.0
    live, can_vanish, ended = True, True, False

    def __init__(self, clock: HandClock, kind: str = "monotonic") -> None:
        self.turns, self.clock_kind = Turns(clock), kind
        self.open_errors: list[Exception] = []
        self.close_error: Exception | None = None
        self.opened = 0

    def open(self) -> None:
        if self.open_errors:
            raise self.open_errors.pop(0)
        self.opened += 1

    def close(self) -> None:
        if self.close_error is not None:
            raise self.close_error

    def read(self, timeout_seconds: float) -> Any:
        item = self.turns.wait(timeout_seconds, reading=True)
        if isinstance(item, Exception):
            raise item
        return item


class _Stop(threading.Event):
    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def set(self) -> None:
        super().set()
        self._turns.let_go()

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            assert timeout is not None
            self._turns.pauses.append(timeout)
            self._turns.wait(timeout, reading=False)
        return self.is_set()


class SteppedCapture(Capture):
    """Waits by the turns, and never for a frame."""

    def __init__(self, camera: Any, *arguments: Any) -> None:
        super().__init__(camera, *arguments)
        self._stop = _Stop(camera.turns)
        self._turns: Turns = camera.turns

    def start(self) -> None:
        super().start()
        self._turns.began()


class SteppedFeeds(Feeds):
    """Never waits for a frame."""

    def get(self, timeout_seconds: float) -> list[tuple[Feed, Captured]]:
        arrived = super().get(0)
        if not arrived and not self.ended and timeout_seconds > 0:
            raise Silence
        return arrived


class TinyEngine:
    """``TinyStep`` in NumPy, faster to make than a graph is to load; its runs go wrong when told to."""

    name, providers, fallback_reason = "tiny", ("cpu",), None

    def __init__(self, step: TinyStep) -> None:
        self.step = step
        self.failures = self.nans = 0

    def bind(self, batch: int) -> Binding:
        m = self.step.manifest
        channels, size = m.preprocess.input_channels, m.preprocess.input_px
        inputs = {
            "frame": np.zeros((batch, channels, size, size), np.float32),
            "past": np.zeros((batch, m.segments - 1, m.feature_size), np.float32),
        }
        outputs = {
            "feature": np.zeros((batch, m.feature_size), np.float32),
            "logits": np.zeros((batch, len(m.labels)), np.float32),
        }

        def run() -> None:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("out of memory")
            for row in range(batch):
                outputs["feature"][row] = feature = self.step.feature(inputs["frame"][row])
                outputs["logits"][row] = np.concatenate([*inputs["past"][row], feature]) @ self.step.w2
            if self.nans:
                self.nans -= 1
                outputs["logits"][0, 0] = np.nan

        return Binding(inputs, outputs, run)

    def close(self) -> None: ...


class Stepped:
    """A stream on a camera and a clock moved by hand; ``given`` are all its predictions."""

    def __init__(self, kind: str = "monotonic", manifest: Any = None, **options: Any) -> None:
        self.clock = HandClock()
        self.camera = SteppedCamera(self.clock, kind)
        self.engine = TinyEngine(TinyStep(manifest or tiny_manifest()))
        self.recognizer = Recognizer(self.engine.step.manifest, self.engine)
        self.labels = LabelStream(self.recognizer, self.camera, StreamOptions(**options), self.clock)
        self.given: list[Prediction] = []
        self.count = 0
        self._rng = np.random.default_rng(7)

    @contextmanager
    def running(self) -> Iterator[Stepped]:
        with ExitStack() as opened:
            with pytest.MonkeyPatch.context() as patch:  # only while it is opened: other streams have threads
                patch.setattr(import_module("kd_edge.runtime.feed"), "Capture", SteppedCapture)
                patch.setattr(import_module("kd_edge.runtime.stream"), "Feeds", SteppedFeeds)
                opened.enter_context(self.labels)
            yield self

    def picture(self, shape: tuple[int, ...] = (16, 24)) -> np.ndarray:
        """Another one each time."""
        return self._rng.integers(0, 256, shape, dtype=np.uint8)

    def pass_by(self, ms: float, step_ms: float = 20) -> None:
        """Time without anything from the camera."""
        end_ns = self.clock.ns + round(ms * 1e6)
        while self.clock.ns < end_ns:
            self.camera.turns.advance(min(step_ms, (end_ns - self.clock.ns) / 1e6))
            self.take()

    def give(self, item: Any) -> list[Prediction]:
        """The camera delivers something now, if it is open; the predictions that follow."""
        if self.camera.turns.reading:
            self.camera.turns.give(item)
        return self.take()

    def frame(self, image: Any = ..., stamp: Any = ...) -> list[Prediction]:
        """A frame captured now, or with another stamp."""
        image = self.picture() if image is ... else image
        self.count += 1
        return self.give(Frame(image, self.clock.ns if stamp is ... else stamp, self.count - 1, self.camera.name))

    def take(self) -> list[Prediction]:
        """The predictions there are now."""
        new: list[Prediction] = []
        try:
            while True:
                new.append(next(self.labels))
        except Silence:
            pass
        finally:
            self.given += new
        return new
