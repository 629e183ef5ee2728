"""Counters of a stream."""

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
"""States of predictions whose window was full."""


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """Counters of one camera.

    Attributes:
        labels: Predictions by state.
        seconds: Time from the first frame to the end of the last one, whose duration is the mean frame interval.
        live: True for a camera, False for a recording.
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
        misdated: Frames whose stamp violated the camera's clock rule.
        damaged: Pictures that could not be decoded.
        reconnects: How often the camera was reopened.
        pushed: Frames encoded.
        engine_failures: Frames the engine failed on.
        labels: Predictions by state.
        reasons: Predictions that are not ``ok``, by reason.
        fps: Frames encoded per second of wall time.
        sink_faults: Fault of each sink that does not work now, by name.
        sink_dropped: Predictions lost because a sink was too slow or broken.
        sinks_reopened: How often a broken sink was reopened.
        recorded: Frames in the recording.
        unrecorded: Pushed frames missing from the recording: the disk was too slow or full.
        record_fault: What ended the recording, or the recording of clips, early; empty if nothing did.
        clips: Clips saved.
        lost_clips: Clips not saved: the disk was too slow or full, or the folder reached its size limit.
        sources: Counters of each camera, by name.
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
        """A message for each recording that ended before the model's window was ever full."""
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
    """Running counters of one camera."""

    labels: Counter[str] = field(default_factory=Counter)
    _first_ns: int = 0
    _last_ns: int = 0
    _frames: int = 0

    def see(self, captured_ns: int) -> None:
        """Count a frame that got a prediction."""
        if self._frames == 0:
            self._first_ns = self._last_ns = captured_ns
        if captured_ns > self._last_ns or self._frames == 0:  # not an old frame reported as stale
            self._last_ns = captured_ns
            self._frames += 1

    def statistics(self, *, live: bool) -> SourceStatistics:
        """Counters so far."""
        span = (self._last_ns - self._first_ns) / 1e9
        seconds = span * self._frames / (self._frames - 1) if self._frames > 1 else 0.0
        return SourceStatistics({state: count for state, count in self.labels.items() if count}, seconds, live)


@dataclass(slots=True)
class Counts:
    """Running counters of a stream.

    Attributes:
        labels: Predictions by state.
        reasons: Predictions that are not ``ok``, by reason.
        sources: Counters of each camera, by name.
        pushed: Frames encoded.
        failures: Frames the engine failed on.
        last_push_ns: End of the last step.
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
        """Count a prediction; ``times=-1`` undoes it, for one that became stale while it waited for the caller."""
        self.labels[prediction.state.value] += times
        self.sources[prediction.source].labels[prediction.state.value] += times
        if prediction.reason:
            self.reasons[prediction.reason.value] += times

    def push(self, frames: int, now_ns: int) -> None:
        """Count the frames of a step that ended now."""
        self.last_push_ns = now_ns
        if self.pushed == 0:
            self._first_push_ns, self._first_pushed = now_ns, frames
        self.pushed += frames

    def of(self, source: str, *, live: bool) -> SourceStatistics:
        """Counters of one camera. Safe to call from other threads: adds no entry for an unknown source."""
        return self.sources.get(source, SourceCounts()).statistics(live=live)

    @property
    def fps(self) -> float:
        """Frames encoded per second of wall time."""
        seconds = (self.last_push_ns - self._first_push_ns) / 1e9
        return (self.pushed - self._first_pushed) / seconds if seconds > 0 else 0.0


def statistics_of(feeds: Sequence[Feed], counts: Counts, sinks: Sequence[SinkThread], keeping: Keeping) -> Statistics:
    """All counters of a stream so far.

    Args:
        feeds: Its cameras.
        counts: Its labels.
        sinks: Its sinks.
        keeping: Its recorders.
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
