"""What happened in a stream, counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

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
