"""Labels from one camera, as an iterator: capture thread, recogniser, watchdog, sinks."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, TracebackType

from kd_edge.artifact import Artifact
from kd_edge.engines import Provider
from kd_edge.runtime.cameras import Wanted, check_fits, make_camera, timeouts_of
from kd_edge.runtime.cameras.base import Camera
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.capture import Capture, CaptureCounters, Captured, Cut
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.recognizer import Recognizer, SelfTest
from kd_edge.runtime.sinks import Sink, SinkThread, open_sink
from kd_edge.runtime.watchdog import ServiceNotifier, Watchdog
from kd_edge.types import Cause, Prediction, Reason

log = logging.getLogger("kd_edge.runtime")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters of a stream.

    Attributes:
        captured: Frames the camera delivered.
        dropped: Frames a newer one replaced before they were encoded.
        frozen: Frames that showed a frozen picture and were not encoded.
        reconnects: How often the camera was reopened.
        pushed: Frames encoded.
        labels: Predictions by state.
        fps: Frames encoded per second of wall time.
        sink_faults: What broke each broken sink, by name.
        sink_dropped: Predictions that sinks were too slow for or broken to take.
    """

    captured: int
    dropped: int
    frozen: int
    reconnects: int
    pushed: int
    labels: dict[str, int]
    fps: float
    sink_faults: dict[str, str] = field(default_factory=dict)
    sink_dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What a stream does beside labelling a camera with a model; see ``stream``, which has the same defaults."""

    realtime: bool = False
    sinks: tuple[str | Sink, ...] = ()
    threads: int = 1
    provider: Provider = "cpu"
    strict: bool = False
    self_test: SelfTest = "raise"
    valid_ms: float | None = None
    notify: bool = False


def stream(
    *,
    model: str | Path | Artifact | Recognizer,
    camera: str | Camera,
    realtime: bool = False,
    sinks: Sequence[str | Sink] = (),
    threads: int = 1,
    provider: Provider = "cpu",
    strict: bool = False,
    self_test: SelfTest = "raise",
    valid_ms: float | None = None,
    notify: bool = False,
) -> LabelStream:
    """Label a camera's frames as they come.

    ``with stream(model="student.onnx", camera="ir0") as labels: for prediction in labels: ...``

    Args:
        model: Artifact, or a recogniser that is loaded already; then the options for loading do not apply.
        camera: Name, URI, or a camera of one's own (``Camera``), which brings its time-outs or gets the usual ones.
        realtime: Pace a recording by its stamps; without it every frame is labelled as fast as possible.
        sinks: URIs or sinks of one's own; each gets every prediction, none can delay one.
        threads: How many the engine may use.
        provider: ``cpu`` or ``cuda``; an unusable one falls back to the CPU and labels are ``degraded``.
        strict: Make that fallback an error.
        self_test: What to do when the golden clip's logits are not reproduced; see ``Recognizer.load``.
        valid_ms: How long a label may be acted on after its frame's capture; see ``Recognizer.load``.
        notify: Report readiness and fresh frames to systemd.

    A model with memory (a causal TSM) is clocked by its segments: one label per segment spacing, not per frame.

    Returns:
        A context manager and iterator; everything is opened on entering and closed on leaving it.
    """
    options = StreamOptions(
        realtime=realtime,
        sinks=tuple(sinks),
        threads=threads,
        provider=provider,
        strict=strict,
        self_test=self_test,
        valid_ms=valid_ms,
        notify=notify,
    )
    return LabelStream(model, camera, options)


class LabelStream:
    """See ``stream``. Iterating ends with a recording; a live camera's labels end with the ``with`` block.

    Args:
        model: Artifact, or a recogniser that is loaded already.
        camera: Name, URI, or a camera of one's own.
        options: Everything else.
        clock: Stamps predictions and says when they are stale; cameras that are made here follow it, too.

    Attributes:
        recognizer: The recogniser in use, once entered.
        camera: The camera in use, once entered.
    """

    recognizer: Recognizer
    camera: Camera

    def __init__(
        self,
        model: str | Path | Artifact | Recognizer,
        camera: str | Camera,
        options: StreamOptions,
        clock: Clock = MONOTONIC,
    ) -> None:
        self._model, self._camera, self._options, self._clock = model, camera, options, clock
        self._closing = ExitStack()
        self._sinks: list[SinkThread] = []
        self._capture: Capture | None = None
        self._labels: Counter[str] = Counter()
        self._cut = Cut()
        self._last_id, self._last_ns = -1, 0
        self._pushed = self._first_push_ns = self._last_push_ns = 0

    def __enter__(self) -> LabelStream:
        """Load the model, open camera and sinks, start capturing.

        Raises:
            KdEdgeError: Model, camera or a sink cannot be opened; nothing stays open.
        """
        with ExitStack() as opened:
            self.recognizer = self._load()
            if self.recognizer is not self._model:
                opened.callback(self.recognizer.close)  # last, when nothing captures any more
            if self.recognizer.degraded_reason:
                log.warning("labels are degraded: %s", self.recognizer.degraded_reason)
            self.camera = self._make_camera()
            self._timeouts = timeouts_of(self.camera)
            self._capture = Capture(self.camera, self._timeouts, self._clock)
            opened.callback(self._capture.stop)
            self.camera.open()
            check_fits(self.camera, Wanted.by(self.recognizer.manifest))
            self.recognizer.forget(self.camera.name)  # an earlier stream's stamps may be later than this one's
            for wanted in self._options.sinks:
                made = open_sink(wanted) if isinstance(wanted, str) else wanted
                sink = SinkThread(made, lossless=not self.camera.live)
                sink.open()
                opened.callback(sink.close)
                self._sinks.append(sink)
            self._service = ServiceNotifier() if self._options.notify else None
            if self._service is not None:
                opened.callback(self._service.stopping)
                self._service.ready()
            self._last_ns = self._clock.now_ns()
            self._watchdog = Watchdog(self.recognizer.valid_ns, self._last_ns)
            self._capture.start()
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop capturing, write what is queued, close everything; takes bounded time."""
        self._closing.close()

    def __iter__(self) -> Iterator[Prediction]:
        """The stream itself."""
        return self

    def __next__(self) -> Prediction:
        """The next prediction: of a new frame, or ``stale`` when none came in time.

        Raises:
            StopIteration: The recording has ended, or the stream was left.
            KdEdgeError: The recording is damaged here, or frames are not what the model needs.
        """
        if self._capture is None:
            raise RuntimeError("iterate inside the with block: with stream(...) as labels: for prediction in labels")
        while True:
            captured = self._capture.get(self._wait_seconds())
            prediction = self._push(captured) if captured is not None else None
            prediction = prediction or self._due_stale()  # a frame that is not newer than the last is not fresh
            if prediction is not None:
                self._labels[prediction.state.value] += 1
                for sink in self._sinks:
                    sink.put(prediction)
                return prediction
            if captured is None and self._capture.ended:
                if self._capture.error is not None:
                    raise self._capture.error
                raise StopIteration

    @property
    def statistics(self) -> Statistics:
        """Counters up to now; also after leaving."""
        counters = CaptureCounters() if self._capture is None else self._capture.counters
        seconds = (self._last_push_ns - self._first_push_ns) / 1e9
        return Statistics(
            captured=counters.captured,
            dropped=counters.dropped,
            frozen=counters.frozen,
            reconnects=counters.reconnects,
            pushed=self._pushed,
            labels=dict(self._labels),
            fps=(self._pushed - 1) / seconds if seconds > 0 else 0.0,
            sink_faults={s.sink.name: s.fault for s in self._sinks if s.fault is not None},
            sink_dropped=sum(s.dropped for s in self._sinks),
        )

    def _load(self) -> Recognizer:
        if isinstance(self._model, Recognizer):
            return self._model
        options = self._options
        return Recognizer.load(
            self._model,
            threads=options.threads,
            provider=options.provider,
            strict=options.strict,
            self_test=options.self_test,
            valid_ms=options.valid_ms,
        )

    def _make_camera(self) -> Camera:
        if not isinstance(self._camera, str):
            return self._camera
        wanted = Wanted.by(self.recognizer.manifest)
        config = camera_config(self._camera)
        return make_camera(self._camera, config, wanted, realtime=self._options.realtime, clock=self._clock)

    def _wait_seconds(self) -> float:
        """Until a stale prediction is due; with a recording, which is never late, until it is worth another look."""
        if self.camera.live:
            return self._watchdog.wait_seconds(self._clock.now_ns())
        return self._timeouts.read_timeout_ms / 1e3

    def _push(self, captured: Captured) -> Prediction | None:
        frame = captured.frame
        if captured.cut != self._cut:
            self._cut = captured.cut
            self.recognizer.reset(frame.source, captured.cut.cause)
        prediction = self.recognizer.push(
            frame.image, frame.captured_ns, frame.source, frame_id=frame.frame_id, truth=frame.truth
        )
        if prediction is None:
            return None
        now_ns = self._last_push_ns = self._clock.now_ns()
        if self._pushed == 0:
            self._first_push_ns = now_ns
        self._pushed += 1
        self._last_id, self._last_ns = frame.frame_id, frame.captured_ns
        if not self.camera.live:  # its stamps are its own: no moment of this machine's clock belongs beside them
            return prediction
        if now_ns > prediction.valid_until_ns:  # old when it came, or the machine too slow: no label to act on
            late = Cause(Reason.LATE, f"labelled {(now_ns - frame.captured_ns) / 1e6:.0f} ms after its capture")
            return self.recognizer.stale(frame.source, frame.frame_id, frame.captured_ns, now_ns, late)
        self._watchdog.fresh(frame.captured_ns)
        if self._service is not None:
            self._service.alive(now_ns)
        return replace(prediction, emitted_ns=now_ns)

    def _due_stale(self) -> Prediction | None:
        now_ns = self._clock.now_ns()
        if not self.camera.live or (self._capture and self._capture.ended) or not self._watchdog.is_due(now_ns):
            return None
        self._watchdog.told(now_ns)
        silence = Cause(Reason.NO_FRAME, f"no fresh frame for {(now_ns - self._last_ns) / 1e6:.0f} ms")
        return self.recognizer.stale(self.camera.name, self._last_id, self._last_ns, now_ns, silence)


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C inside the block, so that a service stops as cleanly as a person stops it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
