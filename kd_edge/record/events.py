"""Events of a recording session, and its summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from kd_edge.record.clip import Finished


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """Current state of one camera.

    Attributes:
        frames: Number of frames recorded.
        fps: Recent frames per second.
        dropped: Frames lost because the disk was too slow.
        age_ms: Age of its newest frame.
        trouble: Why no frames arrive; empty if they do.
    """

    frames: int
    fps: float
    dropped: int
    age_ms: float
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Current state of the session, several times a second.

    Attributes:
        cameras: State of each camera, by column.
        left_bytes: Bytes that may still be written.
        seconds: Duration of the running clip so far; None between clips.
        label: Label being recorded; empty if there is none.
        waiting: What the session is waiting for; empty if nothing.
    """

    cameras: Mapping[str, CameraStatus]
    left_bytes: int
    seconds: float | None = None
    label: str = ""
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Countdown:
    """Clip ``number`` of ``count`` begins in ``seconds`` (whole seconds)."""

    label: str
    seconds: int
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Began:
    """A clip or a piece of one has begun; the label is empty for a recording without labels."""

    label: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A clip has ended; ``why`` is the reason if it ended early."""

    clip: Finished
    why: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A line of information for the user."""

    text: str


Event = Status | Countdown | Began | Kept | Note


@dataclass(slots=True)
class Summary:
    """Result of a session.

    Attributes:
        out: The folder.
        clips: Number of recordings kept.
        rows: Rows added to the manifest.
        labels: Rows per label; rows without a label are not counted.
        seconds: Total length of the clips.
        size_bytes: Total size of their files.
        frames: Frames kept, per camera.
        dropped: Frames lost because the disk was too slow, per camera.
        cut_short: Kept clips that are shorter than planned and should be reviewed.
        unusable: Frames that were damaged, frozen or had impossible time stamps, per camera.
        reconnects: Number of times each camera was reopened.
        repaired: Clips of an interrupted session that were added to the manifest.
        ended: Why the session ended early; empty if it was completed or ended by the user.
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
        """Add a recording that was kept."""
        self.clips += 1
        self.rows += len(clip.rows)
        self.seconds += clip.seconds
        self.size_bytes += clip.size_bytes
        self.labels = _sum(self.labels, Counter(row["label"] for row in clip.rows if row["label"]))
        self.frames = _sum(self.frames, clip.frames)

    def remove(self, clip: Finished) -> None:
        """Remove a kept recording that was discarded."""
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
