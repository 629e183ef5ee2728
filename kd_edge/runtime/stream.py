"""Labels from one or several cameras, as an iterator: capture threads, recogniser, watchdogs, sinks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import cast

from kd_edge.artifact import Artifact
from kd_edge.engines import CudaBinding, EngineName, Provider
from kd_edge.errors import ArtifactError, CameraError, EngineError, printable
from kd_edge.runtime.cameras import Wanted
from kd_edge.runtime.cameras.base import Camera
from kd_edge.runtime.cameras.colour import look_at_recording
from kd_edge.runtime.cameras.config import CameraConfig, SharedConfig
from kd_edge.runtime.clip_recorder import MAX_MB, RecordOn
from kd_edge.runtime.clock import MONOTONIC, Clock, duration
from kd_edge.runtime.feed import Feed, Feeds, check_together
from kd_edge.runtime.label_hash import LabelHash
from kd_edge.runtime.lifetime import Lifetime
from kd_edge.runtime.log_throttle import LogThrottle
from kd_edge.runtime.mailbox import Captured
from kd_edge.runtime.opening import make_cameras, open_fitting, told_focal
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.recognizer import Recognizer, SelfTest
from kd_edge.runtime.recorders import Keeping, Kept
from kd_edge.runtime.scheduling import scheduled
from kd_edge.runtime.serving import Serving
from kd_edge.runtime.sinks import (
    Sink,
    SinkState,
    SinkThread,
    close_together,
    none_left,
    sink_threads,
    sinks_asked,
)
from kd_edge.runtime.statistics import Counts, Statistics, statistics_of
from kd_edge.runtime.watchdog import ServiceNotifier
from kd_edge.types import Cause, Frame, LabelState, Prediction, Reason

log = logging.getLogger("kd_edge.runtime")

MOST_FAILURES = 5
"""After this many failures in a row the engine is given up: it will not recover by itself."""


def stream(
    *,
    model: str | Path | Artifact | Recognizer,
    camera: str | Camera | Sequence[str | Camera],
    realtime: bool = False,
    sinks: str | Path | Sink | Sequence[str | Path | Sink] = (),
    engine: EngineName = "onnxruntime",
    threads: int | None = None,
    provider: Provider | None = None,
    strict: bool = False,
    cuda_binding: CudaBinding = "auto",
    self_test: SelfTest = "raise",
    valid_ms: float | None = None,
    max_age_ms: float | None = None,
    smooth_ms: float | None = None,
    notify: bool = False,
    trust: Path | str | None = None,
    record: Path | str | None = None,
    record_on: RecordOn | None = None,
    record_dir: Path | str | None = None,
    record_max_mb: float = MAX_MB,
) -> LabelStream:
    """Label the frames of a camera, or of several, as they come.

    ``with stream(model="student.onnx", camera="ir0") as labels: for prediction in labels: ...``

    Several cameras (``camera=["ir0", "ir1"]``) share the model: frames available at the same time run as one batched
    step, ``prediction.source`` names the camera. Losing one camera does not affect the others. Recordings are labelled
    in the order of their stamps.

    Args:
        model: Path of an artifact, ``bundled`` for the student in the package, a loaded artifact, or a recogniser (the
            options for loading then do not apply).
        camera: Name, URI, or a custom ``Camera`` (with its own time-outs or the defaults); or several with distinct
            names (``left=v4l2:/dev/video0``), either all live or all recordings.
        realtime: Pace a recording by its stamps; without it every frame is labelled as fast as possible.
        sinks: A URI, a ``Path`` for JSON lines, or a custom ``Sink``, or several; each gets every prediction, and none
            can delay one.
        engine: What runs the model; ``auto`` takes the fastest one here, see ``Recognizer.load``.
        threads: How many threads the engine may use; by default the camera file's ``threads``, else 1.
        provider: What to run on; if it is unavailable, the CPU is used and labels are ``degraded``.
        strict: Make that fallback an error.
        cuda_binding: What gives TensorRT the GPU's memory; see ``Recognizer.load``.
        self_test: What to do when the golden clip's logits are not reproduced; see ``Recognizer.load``.
        valid_ms: How long a label may be acted on after its frame's capture; see ``Recognizer.load``.
        max_age_ms: Skip frames older than this when their turn comes; by default none are skipped.
        smooth_ms: Averaging time of the label; see ``Recognizer.load``.
        notify: Report readiness and fresh frames to systemd.
        trust: Public key or folder of keys: the artifact must be signed with one of them, and also satisfy each camera
            file's ``trust``.
        record: New ``.mcap`` file that receives every pushed frame and every label, see ``Recorder``.
        record_on: Which labels are recorded as clips, see ``ClipRecorder``.
        record_dir: The folder for these clips.
        record_max_mb: Their maximum total size, in units of 10^6 bytes.

    A model with recurrent states (a causal TSM) gives one label per segment spacing, not one per frame.

    Returns:
        A context manager and iterator; everything is opened on entering and closed on leaving it.
    """
    options = StreamOptions(
        realtime=realtime,
        sinks=sinks_asked(sinks),
        engine=engine,
        threads=threads,
        provider=provider,
        strict=strict,
        cuda_binding=cuda_binding,
        self_test=self_test,
        valid_ms=valid_ms,
        max_age_ms=max_age_ms,
        smooth_ms=smooth_ms,
        notify=notify,
        trust=trust,
        record=record,
        record_on=record_on,
        record_dir=record_dir,
        record_max_mb=record_max_mb,
    )
    return LabelStream(model, camera, options)


class LabelStream:
    """See ``stream``. Iteration ends with the recordings; with live cameras it lasts as long as the ``with`` block.

    It may be entered again after it was left: everything is reopened, and counters start at 0.

    Args:
        model: See ``stream``.
        camera: Name, URI, or a custom camera; or several.
        options: All other options.
        clock: Stamps predictions and decides when they are stale; also used by cameras created here.

    Attributes:
        recognizer: The recogniser in use, once entered.
        cameras: The cameras in use, once entered.
        max_age_ms: As in ``options``; may be changed at any time.
    """

    recognizer: Recognizer
    cameras: tuple[Camera, ...]

    def __init__(
        self,
        model: str | Path | Artifact | Recognizer,
        camera: str | Camera | Sequence[str | Camera],
        options: StreamOptions,
        clock: Clock = MONOTONIC,
    ) -> None:
        self._model, self._options, self._clock = model, options, clock
        self.max_age_ms = options.max_age_ms
        self._asked = tuple(camera) if isinstance(camera, (list, tuple)) else (cast("str | Camera", camera),)
        self._life = Lifetime(self)
        self._begin()

    def _begin(self) -> None:
        """Reset the state of one pass."""
        self._sinks: list[SinkThread] = []
        self._feeds: Feeds | None = None
        self._counts = Counts()
        self._waiting: deque[Prediction] = deque()  # of a step of several cameras, at most one per camera
        self._failures_in_turn = 0
        self._given_ns: int | None = None  # when the last prediction was returned
        self._away_ns = 0  # time spent in the caller since the last step
        self._log_throttle = LogThrottle(self._clock)
        self._keeping = Keeping()

    def __enter__(self) -> LabelStream:
        """Load the model, open cameras and sinks, start capturing.

        Raises:
            KdEdgeError: Model, a camera or a sink cannot be opened, or a camera's frame rate can never fill a window;
                nothing stays open.
            RuntimeError: The stream is already entered.
        """
        self._life.enter(self._open_all)
        if self._life.stop_asked:  # meanwhile, or before
            self.stop()
        return self

    def _open_all(self) -> ExitStack:
        """Open and start everything that one pass needs.

        Returns:
            What closes it; holds no reference to this stream, so that a dropped stream can be collected.
        """
        self._begin()
        with ExitStack() as opened:
            shared = SharedConfig.of([c for c in self._asked if isinstance(c, str)])
            opened.enter_context(scheduled(shared.cpus, shared.priority))
            self._serving = Serving(self._model, self._options, shared, len(self._asked))
            opened.callback(self._serving.close)  # last, once capturing has stopped
            self.recognizer = self._serving.recognizer
            wanted, realtime = Wanted.by(self.recognizer.manifest), self._options.realtime
            self.cameras = make_cameras(self._asked, shared, wanted, realtime=realtime, clock=self._clock)
            self._feeds = Feeds(self.cameras, self._clock)
            opened.callback(self._feeds.stop)
            configs = [shared.configs.get(asked) if isinstance(asked, str) else None for asked in self._asked]
            for config, feed in zip(configs, self._feeds.all, strict=True):
                self._open(feed, wanted)
                # A recording that declares its band was already checked by it.
                if config is not None and config.scheme == "replay" and feed.camera.band is None:
                    look_at_recording(feed.name, config, wanted)
            check_together(self.cameras)  # some learn their names on opening
            assumed = self.recognizer.manifest.preprocess.focal
            lenses = zip(configs, self._feeds.all, strict=True)
            focals = {feed.name: told_focal(feed.camera, config, assumed) for config, feed in lenses}
            self.recognizer.expect(focals, focal=focals)
            opened.callback(_forget, self.recognizer, self._feeds)
            self._open_sinks(opened)
            self._keep(shared, configs, opened)
            self._service = ServiceNotifier() if self._options.notify else None
            if self._service is not None:
                opened.callback(self._service.stopping)
                self._service.ready()
            for feed in self._feeds.all:
                feed.start(self.recognizer.valid_ns)
            if self._feeds.live:
                self._serving.begin_upgrade(opened)
            return opened.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop capturing, write what is queued, close everything.

        Takes bounded time, except for recordings: all their labels are written as long as the sinks make progress.

        Raises:
            SinkError: A recording's sink could not write everything, and no other error is being raised.
        """
        self._life.leave()
        if kind is None:
            for sink in self._sinks:
                sink.check()

    def stop(self) -> None:
        """Ask the iteration to end, from any thread; the iterating thread then leaves the ``with`` block.

        The request lasts until the stream is left: a stream that is being entered, or not yet entered, ends before its
        first label. It can be entered again afterwards.
        """
        self._life.ask_to_stop()
        for feed in () if self._feeds is None else self._feeds.all:
            feed.capture.ask_to_stop()

    def frame_of(self, source: str) -> Frame | None:
        """The last pushed frame of a camera, for display; None before the first one."""
        feeds = () if self._feeds is None else self._feeds.all
        return next((feed.last_frame for feed in feeds if feed.name == source), None)

    def __iter__(self) -> Iterator[Prediction]:
        """The stream itself."""
        return self

    def __next__(self) -> Prediction:
        """The next prediction: of a new frame, or ``stale`` when none came in time. Runs the model in this call.

        Raises:
            StopIteration: The recordings have ended, or the stream was left.
            CameraError: The frames do not suit the model; with several live cameras, those of the last one left.
            DataError: A recording is damaged at this point.
            ArtifactError: The engine fails on every frame.
            SinkError: A recording's sink has failed: its next label would be lost.
        """
        feeds = self._feeds
        if feeds is None:
            raise RuntimeError("iterate inside the with block: with stream(...) as labels: for prediction in labels")
        self._life.taken_up()
        if self._given_ns is not None:
            self._away_ns += self._clock.now_ns() - self._given_ns
        prediction = self._next_of(feeds)
        self._given_ns = self._clock.now_ns()
        return prediction

    def _next_of(self, feeds: Feeds) -> Prediction:
        if self._waiting and self._life.goes_on:
            return self._refreshed(self._waiting.popleft())
        while self._life.goes_on:  # another thread may stop or leave the stream
            arrived = feeds.get(feeds.wait_seconds(self._clock.now_ns()))
            try:
                predictions = self._labelled(arrived)
            except EngineError:
                if self._life.goes_on:
                    raise
                break  # the engine was closed because the stream was left
            predictions += self._due_stale(
                {p.source for p in predictions}
            )  # a camera whose frame was too old is not fresh
            if predictions:
                self._publish(predictions)
                self._waiting.extend(predictions[1:])
                return predictions[0]
            if not arrived and (feeds.ended or feeds.error):
                if feeds.error is not None:
                    raise feeds.error
                break
        raise StopIteration

    @property
    def statistics(self) -> Statistics:
        """Counters so far; also available after leaving."""
        feeds = () if self._feeds is None else self._feeds.all
        return statistics_of(feeds, self._counts, self._sinks, self._keeping)

    @property
    def label_hash(self) -> LabelHash | None:
        """Hash of the labels of recordings, or of cameras being recorded; None otherwise."""
        return self._keeping.label_hash

    @property
    def is_heard(self) -> bool:
        """Whether labels reach anyone but the caller: False if there were sinks and all of them have failed."""
        return not none_left(self._sinks)

    @property
    def any_sink_works(self) -> bool:
        """Whether some sink accepts labels, or none was requested; after leaving: whether one did at the end."""
        return not self._sinks or any(sink.state is SinkState.WORKING for sink in self._sinks)

    def _open(self, feed: Feed, wanted: Wanted) -> None:
        """Open a camera that suits the model, and forget its window from an earlier stream."""
        open_fitting(feed.camera, wanted, self.recognizer.needed_rate, self.recognizer.manifest.name)
        feed.name = feed.camera.name
        self.recognizer.forget(feed.name)

    def _open_sinks(self, opened: ExitStack) -> None:
        self._sinks = sink_threads(self._options.sinks, lossless=not self.cameras[0].live, clock=self._clock)
        opened.callback(close_together, self._sinks)
        for sink in self._sinks:
            sink.open()

    def _keep(self, shared: SharedConfig, configs: Sequence[CameraConfig | None], opened: ExitStack) -> None:
        options = self._options
        kept = Kept(
            options.record, options.record_on, options.record_dir, options.record_max_mb, not self.cameras[0].live
        )
        about = {
            "engine": self.recognizer.engine.name,
            "threads": str(options.threads or shared.threads or 1),
            "smooth_ms": "" if options.smooth_ms is None else f"{options.smooth_ms:g}",
        }
        self._keeping = Keeping.of(kept, self.recognizer.manifest, about, self._clock)
        opened.callback(self._keeping.close)
        self._keeping.open(zip(self.cameras, configs, strict=True))

    def _publish(self, predictions: list[Prediction]) -> None:
        """Count predictions, record them and send them to the sinks."""
        for prediction in predictions:
            self._counts.count(prediction)
            self._counts.sources[prediction.source].see(prediction.captured_ns)
            self._keeping.label(prediction)
            for sink in self._sinks:
                sink.put(prediction)
        for sink in self._sinks:
            sink.check()

    def _refreshed(self, prediction: Prediction) -> Prediction:
        """A prediction that waited for the caller, as of now; corrects the counts if it has become stale."""
        feeds = self._feeds
        if feeds is None or not feeds.live:
            return prediction
        now_ns, source = self._clock.now_ns(), next(feed for feed in feeds.all if feed.name == prediction.source)
        now = self.recognizer.at(prediction, now_ns)
        if source.slept_ns and now.state is not LabelState.STALE:
            asleep = _asleep(source)
            now = self.recognizer.stale(now.source, now.frame_id, now.captured_ns, now_ns, asleep)
        if now.state is not prediction.state:
            self._counts.count(prediction, -1)
            self._counts.count(now)
        return now

    def _labelled(self, arrived: Sequence[tuple[Feed, Captured]]) -> list[Prediction]:
        """Run one step over frames of different cameras; a frame may give no prediction."""
        if not arrived:
            return []
        self._serving.take_upgrade()
        began_ns, is_live = self._clock.now_ns(), all(feed.camera.live for feed, _ in arrived)
        frames: dict[Feed, Frame] = {}
        for feed, captured in arrived:
            if cause := feed.cut_before(captured):
                self.recognizer.reset(feed.name, cause)
                self._keeping.cut(feed.name, cause)
                if cause.reason is Reason.SUSPENDED:
                    feed.awoke()  # this frame was captured after waking up
            if not (is_live and feed.is_too_old(captured.frame, began_ns, self.max_age_ms)):
                frames[feed] = captured.frame
        if is_live:
            return self._labelled_live(frames, began_ns)
        return list(self._pushed_by(frames).values())

    def _labelled_live(self, frames: dict[Feed, Frame], began_ns: int) -> list[Prediction]:
        """Label live cameras: a camera's fault shows in its labels, and ends the stream only if it is the last."""
        steps = self.recognizer.steps
        try:
            given = self._pushed_by(frames)
        except CameraError as error:
            if len(self.cameras) == 1:
                raise
            if len(frames) > 1:  # push each alone to find the faulty camera
                return [p for feed, frame in frames.items() for p in self._labelled_live({feed: frame}, began_ns)]
            for feed in frames:
                feed.capture.abandon(error)
            return []
        except ArtifactError as error:
            return self._failed(frames, error)
        if self.recognizer.steps > steps:
            self._failures_in_turn = 0
        predictions = [self._as_of_now(feed, prediction, began_ns) for feed, prediction in given.items()]
        self._away_ns = 0
        return predictions

    def _as_of_now(self, feed: Feed, prediction: Prediction, began_ns: int) -> Prediction:
        """A live camera's prediction as of the end of its step: ``stale`` if it came too late."""
        now_ns = self._counts.last_push_ns
        if feed.slept_ns:
            cause = _asleep(feed)
            feed.awoke()
            return self.recognizer.stale(feed.name, prediction.frame_id, prediction.captured_ns, now_ns, cause)
        feed.load.see(began_ns, now_ns, feed.capture.counters.captured, self._away_ns)
        prediction = self.recognizer.at(prediction, now_ns)  # stale if the frame was old or the machine too slow
        if prediction.state is not LabelState.STALE:
            feed.watchdog.fresh(prediction.captured_ns)
            if self._service is not None and self.any_sink_works:
                self._service.alive(now_ns)
        return self._explained(feed, prediction)

    def _pushed_by(self, frames: dict[Feed, Frame]) -> dict[Feed, Prediction]:
        """Push frames as one step; returns the predictions.

        Raises:
            ArtifactError: The engine fails.
            CameraError: A frame does not suit the model.
        """
        given = self.recognizer.push_many({feed.name: frame for feed, frame in frames.items()})
        self._serving.tell_degraded()
        for feed, frame in frames.items():
            self._keeping.frame(feed.name, frame)
        predictions = {feed: p for feed in frames if (p := given[feed.name]) is not None}
        if predictions:
            self._counts.push(len(predictions), self._clock.now_ns())
        for feed, prediction in predictions.items():
            feed.pushed(frames[feed])
            self._keeping.answer(prediction)
        return predictions

    def _failed(self, frames: dict[Feed, Frame], error: ArtifactError) -> list[Prediction]:
        """``stale`` predictions for frames on which the engine failed; their windows were restarted.

        Raises:
            ArtifactError: The engine fails on every frame.
        """
        self._counts.failures += len(frames)
        self._failures_in_turn += 1
        if self._failures_in_turn >= MOST_FAILURES:
            raise error
        if self._log_throttle.is_due(Reason.ENGINE_FAILED):
            log.warning("%s", printable(error.found))
        now_ns, cause = self._clock.now_ns(), Cause(Reason.ENGINE_FAILED, error.found)
        for feed in frames:
            self._keeping.cut(feed.name, cause)
        return [
            self.recognizer.stale(feed.name, frame.frame_id, frame.captured_ns, now_ns, cause)
            for feed, frame in frames.items()
        ]

    def _explained(self, feed: Feed, prediction: Prediction) -> Prediction:
        """If frames are sparse or labels late because machine or caller is too slow, give that as the reason."""
        if prediction.reason not in (Reason.SLOW_RATE, Reason.SPARSE, Reason.LATE) or not feed.load.is_over:
            return prediction
        cause = feed.load.cause(self.recognizer.needed_rate)
        return replace(prediction, reason=cause.reason, detail=cause.detail)

    def _due_stale(self, labelled: set[str]) -> list[Prediction]:
        """``stale`` predictions for live cameras whose last prediction has expired."""
        if self._feeds is None or not self._feeds.live or self._feeds.ended:
            return []
        now_ns = self._clock.now_ns()
        return [
            self.recognizer.stale(feed.name, feed.last_id, feed.last_ns, now_ns, cause)
            for feed in self._feeds.all
            if feed.name not in labelled and (cause := feed.due_cause(now_ns)) is not None
        ]


def _forget(recognizer: Recognizer, feeds: Feeds) -> None:
    """Free a recogniser's memory of these cameras, so that another stream can use it."""
    for feed in feeds.all:
        recognizer.forget(feed.name)


def _asleep(feed: Feed) -> Cause:
    return Cause(Reason.SUSPENDED, f"the machine slept for {duration(feed.slept_ns)}")
