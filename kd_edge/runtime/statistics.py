"""What happened in a stream, counted."""

from __future__ import annotations

from dataclasses import dataclass


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
