"""What happened in a stream, counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kd_edge.runtime.capture import CaptureCounters
from kd_edge.runtime.feed import Feed
from kd_edge.runtime.recorders import Keeping
from kd_edge.runtime.sinks import SinkThread
from kd_edge.types import Prediction

WITH_LABEL = frozenset({"ok", "degraded", "unknown"})
"""States of a window that was full."""


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """What came of one camera.

    Attributes:
        labels: Predictions by state.
        seconds: From its first frame to the last one, which counts as long as the mean time between frames.
        live: Whether it is a camera; a recording otherwise.
    """

    labels: dict[str, int]
    seconds: float
    live: bool


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters of a stream.

    Attributes:
        captured: Frames the camera delivered.
        dropped: Frames a newer one replaced before they were encoded.
        skipped: Frames that were older than ``max_age_ms`` when their turn came.
        frozen: Frames that showed a frozen picture and were not encoded.
        misdated: Frames whose stamp broke the clock's rule.
        damaged: Pictures that could not be decoded.
        reconnects: How often the camera was reopened.
        pushed: Frames encoded.
        engine_failures: Frames the engine failed on.
        labels: Predictions by state.
        reasons: Predictions that are not ``ok``, by reason.
        fps: Frames encoded per second of wall time.
        sink_faults: What is wrong with each sink that does not work now, by name.
        sink_dropped: Predictions that sinks were too slow for or broken to take.
        sinks_reopened: How often a broken sink came back.
        recorded: Frames in the recording.
        unrecorded: Frames that were pushed and are not in it: the disk was too slow or full.
        record_fault: What ended the recording, or the keeping of clips, early; empty while nothing has.
        clips: Clips that were kept.
        lost_clips: Clips that were not: the disk was too slow or full, or the folder has all it may.
        sources: What came of each camera, by name.
    """

    captured: int
    dropped: int
    skipped: int
    frozen: int
    misdated: int
    damaged: int
    reconnects: int
    pushed: int
    engine_failures: int
    labels: dict[str, int]
    reasons: dict[str, int]
    fps: float
    sink_faults: dict[str, str]
    sink_dropped: int
    sinks_reopened: int
    recorded: int = 0
    unrecorded: int = 0
    record_fault: str = ""
    clips: int = 0
    lost_clips: int = 0
    sources: dict[str, SourceStatistics] = field(default_factory=dict)

    def too_short(self, window_seconds: float) -> Iterator[str]:
        """What to say of each recording that ended before the model's window was full once."""
        for name, source in self.sources.items():
            if source.live or WITH_LABEL & source.labels.keys() or source.seconds >= window_seconds:
                continue
            yield (
                f"{name} is {source.seconds:.1f} s long and the model's window {window_seconds:.1f} s: replay a longer "
                f"recording, or train for shorter ones, with clip_seconds = {max(source.seconds, 0.1):.1f} in the "
                "recipe"
            )


@dataclass(slots=True)
class SourceCounts:
    """What is counted of one camera while a stream runs."""

    labels: Counter[str] = field(default_factory=Counter)
    _first_ns: int = 0
    _last_ns: int = 0
    _frames: int = 0

    def see(self, captured_ns: int) -> None:
        """Note the moment of a frame that a prediction is of."""
        if self._frames == 0:
            self._first_ns = self._last_ns = captured_ns
        if captured_ns > self._last_ns or self._frames == 0:  # not a frame that has become stale
            self._last_ns = captured_ns
            self._frames += 1

    def statistics(self, *, live: bool) -> SourceStatistics:
        """Up to now."""
        span = (self._last_ns - self._first_ns) / 1e9
        seconds = span * self._frames / (self._frames - 1) if self._frames > 1 else 0.0
        return SourceStatistics({state: count for state, count in self.labels.items() if count}, seconds, live)


@dataclass(slots=True)
class Counts:
    """What a stream counts while it runs.

    Attributes:
        labels: Predictions by state.
        reasons: Predictions that are not ``ok``, by reason.
        sources: The same by camera.
        pushed: Frames encoded.
        failures: Frames the engine failed on.
        last_push_ns: When the last step was done.
    """

    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sources: defaultdict[str, SourceCounts] = field(default_factory=lambda: defaultdict(SourceCounts))
    pushed: int = 0
    failures: int = 0
    last_push_ns: int = 0
    _first_pushed: int = 0
    _first_push_ns: int = 0

    def count(self, prediction: Prediction, times: int = 1) -> None:
        """Count a prediction; -1 takes it back, where it became another one while it waited for its reader."""
        self.labels[prediction.state.value] += times
        self.sources[prediction.source].labels[prediction.state.value] += times
        if prediction.reason:
            self.reasons[prediction.reason.value] += times

    def push(self, frames: int, now_ns: int) -> None:
        """Count the frames of a step that is done now."""
        self.last_push_ns = now_ns
        if self.pushed == 0:
            self._first_push_ns, self._first_pushed = now_ns, frames
        self.pushed += frames

    def of(self, source: str, *, live: bool) -> SourceStatistics:
        """What came of one camera. Read by other threads: it makes no entry where nothing was counted yet."""
        return self.sources.get(source, SourceCounts()).statistics(live=live)

    @property
    def fps(self) -> float:
        """Frames encoded per second of wall time."""
        seconds = (self.last_push_ns - self._first_push_ns) / 1e9
        return (self.pushed - self._first_pushed) / seconds if seconds > 0 else 0.0


def statistics_of(feeds: Sequence[Feed], counts: Counts, sinks: Sequence[SinkThread], keeping: Keeping) -> Statistics:
    """Everything that was counted in a stream up to now.

    Args:
        feeds: Its cameras.
        counts: Its labels.
        sinks: Where they go.
        keeping: What is kept of them.
    """
    counters = CaptureCounters.together([feed.capture.counters for feed in feeds])
    recording, clips = keeping.frames, keeping.moments
    return Statistics(
        captured=counters.captured,
        dropped=counters.dropped,
        skipped=sum(feed.skipped for feed in feeds),
        frozen=counters.frozen,
        misdated=counters.misdated,
        damaged=counters.damaged,
        reconnects=counters.reconnects,
        pushed=counts.pushed,
        engine_failures=counts.failures,
        labels=dict(counts.labels),
        reasons=dict(counts.reasons),
        fps=counts.fps,
        sink_faults={s.name: s.fault for s in sinks if s.fault is not None},
        sink_dropped=sum(s.dropped for s in sinks),
        sinks_reopened=sum(s.reopened for s in sinks),
        recorded=recording.frames,
        unrecorded=recording.lost_frames,
        record_fault=keeping.fault,
        clips=clips.clips,
        lost_clips=clips.lost,
        sources={feed.name: counts.of(feed.name, live=feed.camera.live) for feed in feeds},
    )
