"""Placement of the segments of a training clip: over the clip, or in a window as a live camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kd_edge.sampling import gather, segment_indices
from kd_edge.types import Int64

BEFORE_SHARE = 0.4
"""Share of mixed windows that may begin in the preceding action, about as for a live camera."""
LENGTHS = (0.5, 1.5)
"""Range of lengths of a mixed window, in multiples of the live one."""
END_LENGTHS, END_SHARE = (0.7, 1.35), 0.15
"""Range of lengths of a stream window, and the final share of the clip in which its newest segment lies."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Places the segments of a clip.

    Attributes:
        segments: T.
        random_seconds: None spreads the segments over the clip; a length puts them into a random window of 0.5 to 1.5
            times that.
        loop: A random window may begin before the clip does, where what came before is seen: the same once more.
        before_share: Share of such windows that see another action there, which came to its end.
        at_end: Whether such a window ends where the action does, when a stream's label counts.
    """

    segments: int
    random_seconds: float | None = None
    loop: bool = False
    before_share: float = 0.0
    at_end: bool = False

    def choose(self, stamps_ns: Int64, rng: np.random.Generator | None) -> Int64:
        """(T,) frame indices inside the clip; without ``rng`` the centres of T equal parts of it."""
        if rng is None:
            return segment_indices(len(stamps_ns), self.segments, mode="centre")
        if self.random_seconds is not None:
            length = clip_length_ns(stamps_ns)
            window = min(rng.uniform(*LENGTHS) * self.random_seconds * 1e9, length)
            spacing = int(window / self.segments)
            earliest = int(stamps_ns[0]) + (self.segments - 1) * spacing
            newest = int(rng.integers(min(earliest, int(stamps_ns[-1])), int(stamps_ns[-1]) + 1))
            chosen = gather(stamps_ns, newest, self.segments, spacing)
            if chosen is not None:
                return chosen  # else the clip has fewer frames than segments
        return segment_indices(len(stamps_ns), self.segments, mode="random", rng=rng)

    def around(self, stamps_ns: Int64, rng: np.random.Generator, *, other_before: bool = False) -> Int64:
        """(T,) moments of a looping window in ns from the clip's beginning, oldest first; those before it negative.

        They are moments of frames, where frames come evenly. The newest lies anywhere in the clip, or near its end;
        after another action at least a quarter of the window later, because less tells nobody what is done now.
        """
        assert self.random_seconds is not None
        length_ns = clip_length_ns(stamps_ns)
        period_ns = length_ns / len(stamps_ns)
        lengths = END_LENGTHS if self.at_end else LENGTHS
        spacing_ns = rng.uniform(*lengths) * self.random_seconds * 1e9 / self.segments
        earliest = min(self.segments * spacing_ns / 4, length_ns) if other_before else 0.0
        latest = length_ns
        if self.at_end:  # up to the last frame: after it the clip's first one would come again
            earliest, latest = (1 - END_SHARE) * length_ns, length_ns - period_ns
        newest = earliest + rng.uniform() * max(0.0, latest - earliest)
        moments = newest - np.arange(self.segments - 1, -1, -1) * spacing_ns
        framed: Int64 = np.rint(np.rint(moments / period_ns) * period_ns).astype(np.int64)
        return framed


def clip_length_ns(stamps_ns: Int64) -> float:
    """Length of a clip, each frame counted as long as the mean time between frames."""
    span = float(stamps_ns[-1] - stamps_ns[0])
    return span * len(stamps_ns) / (len(stamps_ns) - 1) if len(stamps_ns) > 1 else 1.0


def same_share(first: Int64, moments: Int64, other: Int64) -> Int64:
    """Times of one modality at the same share of another one's length (recordings may end at different times).

    Args:
        first: Stamps of the modality that the moments are of.
        moments: Any shape, ns.
        other: Stamps of the other modality.
    """
    span, other_span = int(first[-1] - first[0]), int(other[-1] - other[0])
    if span == other_span or span == 0:
        shifted: Int64 = moments - first[0] + other[0]
        return shifted
    scaled: Int64 = other[0] + np.rint((moments - first[0]) * (other_span / span)).astype(np.int64)
    return scaled
