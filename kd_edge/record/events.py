"""What happens while it is recorded, as a session tells it, and what a session has brought in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from kd_edge.record.clip import Finished


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """One camera at the moment.

    Attributes:
        frames: How many were taken for clips.
        fps: Frames per second of late.
        dropped: Frames of clips that the disk was too slow for.
        age_ms: Age of its newest frame.
        trouble: Why none comes; empty while they do.
    """

    frames: int
    fps: float
    dropped: int
    age_ms: float
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How it goes, several times a second.

    Attributes:
        cameras: By their columns.
        left_bytes: What the disk and the folder's bound leave.
        seconds: How long the clip has been running; None between clips.
        label: Of what is being recorded; empty where it has none.
        waiting: What is waited for; empty while nothing is.
    """

    cameras: Mapping[str, CameraStatus]
    left_bytes: int
    seconds: float | None = None
    label: str = ""
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Countdown:
    """A clip is about to begin: ``seconds`` are left, whole ones; clip ``number`` of ``count``."""

    label: str
    seconds: int
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Began:
    """A clip has begun, or a piece of one; with an empty label, a recording without any."""

    label: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A clip has ended: what it is called and holds, and why it ended early, where it did."""

    clip: Finished
    why: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What a user should know, one line."""

    text: str


Event = Status | Countdown | Began | Kept | Note


@dataclass(slots=True)
class Summary:
    """What a session brought.

    Attributes:
        out: The folder.
        clips: Recordings that were kept.
        rows: Rows that were added to the manifest.
        labels: How many rows each label got; those without one are not counted.
        seconds: Length of the clips together.
        size_bytes: Of their files.
        frames: Frames of each camera that were kept.
        dropped: Frames of each camera that were not, because the disk was too slow.
        cut_short: Clips of a set length that were kept and are shorter: rows that somebody should look at.
        unusable: Frames of each camera that were damaged, frozen, or bore impossible stamps.
        reconnects: How often each camera was reopened.
        repaired: Clips of a killed session that are in the manifest now.
        ended: What ended it early; empty where it came to its end, or was ended by its user.
    """

    out: str
    clips: int = 0
    rows: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    size_bytes: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    cut_short: list[str] = field(default_factory=list)
    unusable: dict[str, int] = field(default_factory=dict)
    reconnects: dict[str, int] = field(default_factory=dict)
    repaired: tuple[str, ...] = ()
    ended: str = ""

    def add(self, clip: Finished) -> None:
        """A recording was kept."""
        self.clips += 1
        self.rows += len(clip.rows)
        self.seconds += clip.seconds
        self.size_bytes += clip.size_bytes
        self.labels = _sum(self.labels, Counter(row["label"] for row in clip.rows if row["label"]))
        self.frames = _sum(self.frames, clip.frames)

    def remove(self, clip: Finished) -> None:
        """A recording that had been kept was discarded."""
        self.clips -= 1
        self.rows -= len(clip.rows)
        self.seconds -= clip.seconds
        self.size_bytes -= clip.size_bytes
        labels = Counter(self.labels)
        labels.subtract(row["label"] for row in clip.rows if row["label"])
        self.labels = {label: count for label, count in labels.items() if count}
        self.frames = _sum(self.frames, {name: -count for name, count in clip.frames.items()})
        self.cut_short = [id_ for id_ in self.cut_short if id_ != clip.rows[0]["id"]]


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*one, *other)}
