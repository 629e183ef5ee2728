"""From class probabilities over a video to action intervals: runs above a threshold, or windows, merged per class.

A student knows actions only, no "nothing happens": what happens at a moment is read off the class probabilities of the
window around it. Two kinds of proposals:

- ``runs`` (the default; merges): consecutive frames above ``threshold``, short gaps bridged, then cut back to where the
  probability is at least ``edge`` times the run's peak. For a window that answers in proportion to how much of the
  action it sees, half of the peak is exactly the action's beginning and end, if the action is as long as the window or
  longer. The score is the mean probability over the interval.
- ``windows``: every window proposes itself with its own probability; useful with several ``scales``.

Average precision ranks proposals by their score, so ``threshold`` should be low: a proposal too many at the bottom of
the ranking costs little, one that was never made cannot be found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from kd_edge.detection import Detection, interval_overlap
from kd_edge.errors import DataError
from kd_edge.files import making
from kd_edge.types import Float32, Int64

WINDOW_STEPS = 16
"""Windows that propose themselves lie this part of their length apart."""


class Spotting(BaseModel):
    """How intervals are made of probabilities.

    Attributes:
        proposals: ``runs`` of frames above the threshold, or the ``windows`` themselves.
        threshold: Probability from which a frame or window belongs to a class's proposal.
        edge: Runs are cut back to frames of at least this share of their peak; 0 leaves them whole.
        scales: Lengths of the windows in multiples of the trained one; each encodes every frame again.
        smooth_seconds: Length of the moving mean over the probabilities; 0 leaves them as they are.
        gap_seconds: Runs of a class at most this far apart are joined.
        shortest_seconds: Shorter runs are dropped.
        overlap: Of two proposals of a class that overlap by more, only the better scored one stays.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    proposals: Literal["runs", "windows"] = "runs"
    threshold: float = Field(0.1, gt=0, lt=1)
    edge: float = Field(0.5, ge=0, le=1)
    scales: tuple[Annotated[float, Field(ge=0.1, le=10)], ...] = Field((1.0,), min_length=1)
    smooth_seconds: float = Field(0.2, ge=0)
    gap_seconds: float = Field(0.3, ge=0)
    shortest_seconds: float = Field(0.5, ge=0)
    overlap: float = Field(0.4, gt=0, le=1)


@dataclass(frozen=True, slots=True)
class VideoScores:
    """Class probabilities over a video.

    Attributes:
        stamps_ns: (N,) int64, of the frames.
        probabilities: Per window length (N, K) float32; 0 for a frame that no window covers.
        window_seconds: The window lengths.
    """

    stamps_ns: Int64
    probabilities: tuple[Float32, ...]
    window_seconds: tuple[float, ...]


def spot(video: str, scores: VideoScores, settings: Spotting) -> list[Detection]:
    """Proposals of all classes, best first; their intervals in frames, both ends inclusive.

    Args:
        video: Its name.
        scores: Its probabilities.
        settings: How intervals are made.
    """
    period_ns = _period(scores.stamps_ns)
    # A recording may lack frames; the number of one is its stamp times the rate, not its position.
    numbers = np.rint(scores.stamps_ns / period_ns).astype(int).tolist()
    found: list[Detection] = []
    for table, seconds in zip(scores.probabilities, scores.window_seconds, strict=True):
        smooth = moving_mean(table, 2 * int(settings.smooth_seconds * 1e9 / period_ns / 2) + 1)
        for label in range(table.shape[1]):
            column = smooth[:, label]
            if settings.proposals == "runs":
                intervals = _action_runs(column, settings, period_ns)
            else:
                intervals = _windows(column, settings, round(seconds * 1e9 / period_ns))
            found += [Detection(video, label, numbers[first], numbers[last], value) for first, last, value in intervals]
    return suppress(found, settings.overlap)


def moving_mean(table: Float32, frames: int) -> Float32:
    """Mean over ``frames`` (odd) rows around each row of (N, K); at the ends over the rows there are."""
    half = min(frames // 2, len(table) - 1)
    if half == 0:
        return table
    sums = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(table, axis=0, dtype=np.float64)])  # (N + 1, K)
    rows = np.arange(len(table))
    low, high = np.maximum(rows - half, 0), np.minimum(rows + half, len(table) - 1) + 1
    means: Float32 = ((sums[high] - sums[low]) / (high - low)[:, None]).astype(np.float32)
    return means


def runs(on: npt.NDArray[np.bool_], gap: int) -> list[tuple[int, int]]:
    """First and last position of each stretch of True in (N,), stretches with at most ``gap`` False between joined."""
    at = np.flatnonzero(on)
    if at.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(at) > gap + 1)
    firsts, lasts = at[np.append(0, breaks + 1)], at[np.append(breaks, -1)]
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]


def suppress(found: Iterable[Detection], overlap: float) -> list[Detection]:
    """Drop every proposal that overlaps a better one of its class and video by more; best first, ties as given."""
    kept: dict[tuple[str, int], list[Detection]] = {}
    result = []
    for candidate in sorted(found, key=lambda d: -d.score):
        rivals = kept.setdefault((candidate.video, candidate.label), [])
        if all(interval_overlap(candidate, rival) <= overlap for rival in rivals):
            rivals.append(candidate)
            result.append(candidate)
    return result


def _action_runs(column: Float32, settings: Spotting, period_ns: float) -> list[tuple[int, int, float]]:
    """(first, last, mean probability) of one class's runs; at least two frames, an interval must have a length."""
    gap = round(settings.gap_seconds * 1e9 / period_ns)
    shortest = max(2, round(settings.shortest_seconds * 1e9 / period_ns))
    found = []
    for first, last in runs(column >= settings.threshold, gap):
        part = column[first : last + 1]
        level = max(settings.threshold, settings.edge * float(part.max()))
        for a, b in runs(part >= level, gap):
            if b - a + 1 >= shortest:
                found.append((first + a, first + b, float(part[a : b + 1].mean(dtype=np.float64))))
    return found


def _windows(column: Float32, settings: Spotting, length: int) -> list[tuple[int, int, float]]:
    """(first, last, probability) of one class's windows of ``length`` frames, inside the video."""
    half = max(1, length // 2)
    end = len(column) - 1
    centres = np.arange(0, len(column), max(1, length // WINDOW_STEPS))
    centres = centres[column[centres] >= settings.threshold]
    ends = ((max(0, int(c) - half), min(end, int(c) + half), float(column[c])) for c in centres)
    return [(first, last, value) for first, last, value in ends if last > first]


def _period(stamps_ns: Int64) -> float:
    steps = np.diff(stamps_ns)
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 1e9 / 30


def write_proposals(found: Iterable[Detection], videos: Sequence[str], folder: Path) -> None:
    """Write proposals as PKU-MMD's evaluator reads them: ``<video>.txt`` with ``label,start,end,confidence`` a line.

    Labels count from 1 there, frames from 0. A video without a proposal has an empty file: the evaluator would leave
    out one that is missing. The folder appears in one step.

    Args:
        found: Proposals.
        videos: Names of all videos.
        folder: To make; must be absent or empty.

    Raises:
        DataError: The folder holds something already or cannot be written.
    """
    lines: dict[str, list[str]] = {video: [] for video in videos}
    for d in found:
        lines[d.video].append(f"{d.label + 1},{d.start:.0f},{d.end:.0f},{d.score:.6f}\n")
    with making(folder, "--write", DataError) as temporary:
        for video, rows in lines.items():
            (temporary / f"{video}.txt").write_text("".join(rows), encoding="utf-8")
