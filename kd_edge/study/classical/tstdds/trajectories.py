"""Dense trajectories: points of a grid followed through median-filtered optical flow."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kd_edge.study.classical.tstdds.videos import UInt8
from kd_edge.types import Float32, Int64

MEDIAN_PX = 3
"""Side of the median filter on the flow, as in the dense-trajectory paper."""
QUALITY = 0.001
"""A point needs a structure tensor whose smaller eigenvalue is this share of the frame's largest, or it slides."""
DOMINANT_STEP = 0.7
"""A single step is an error of the flow when it is longer than this share of the whole track."""


@dataclass(frozen=True, slots=True)
class Tracks:
    """Points followed for the same number L of frames.

    Attributes:
        starts: (N,) int64, the first frame of each.
        points: (N, L, 2) float32, x and y in pixels, on the frames ``starts .. starts + L - 1``.
    """

    starts: Int64
    points: Float32

    def __len__(self) -> int:
        return len(self.starts)


def follow(frames: UInt8, flow: Float32, *, length: int, stride: int) -> Tracks:
    """Follow grid points of every frame; a new one starts wherever no track is in the same cell of the grid.

    ``p(t+1) = p(t) + M(F_t)(p(t))``, the filtered flow taken at the nearest pixel. A track that leaves the frame is
    dropped; none starts that the video's end would cut off.

    Args:
        frames: (T, S, S) uint8, one channel.
        flow: (T-1, S, S, 2) float32 from ``optical_flow``.
        length: L, frames per track, at least 2.
        stride: Pixels between the points of the grid.

    Source: Wang et al., "Dense Trajectories and Motion Boundary Descriptors for Action Recognition", IJCV 2013,
        without the spatial pyramid; no camera motion is subtracted, the cameras stand still.
    """
    size = frames.shape[1:]
    starts = np.zeros(0, dtype=np.int64)
    points = np.zeros((0, length, 2), dtype=np.float32)
    done: list[Tracks] = []
    for t, frame in enumerate(frames):
        ages = t - starts  # position of frame t in each track
        now = points[np.arange(len(points)), ages]  # (A, 2)
        if t + length <= len(frames):
            fresh = _seeds(frame, now, stride)
            starts = np.concatenate([starts, np.full(len(fresh), t, dtype=np.int64)])
            points = np.concatenate([points, np.zeros((len(fresh), length, 2), dtype=np.float32)])
            points[len(points) - len(fresh) :, 0] = fresh
            ages, now = t - starts, np.concatenate([now, fresh])
        complete = ages == length - 1
        done.append(Tracks(starts[complete], points[complete]))
        if t == len(flow):
            break
        there = now + _at(_smooth(flow[t]), now)
        going = ~complete & np.all((there >= 0) & (there <= np.array(size[::-1]) - 1), axis=1)
        starts, points, ages = starts[going], points[going], ages[going]
        points[np.arange(len(points)), ages + 1] = there[going]
    return Tracks(np.concatenate([part.starts for part in done]), np.concatenate([part.points for part in done]))


def moving(tracks: Tracks, *, minimum_spread: float, maximum_spread: float, maximum_step: float) -> Tracks:
    """Tracks that are neither static nor runaway.

    Args:
        tracks: All tracks of a video.
        minimum_spread: Pixels; static when the standard deviations of x and of y both lie below it.
        maximum_spread: Pixels; runaway when either lies above it.
        maximum_step: Pixels; runaway when one step is longer and makes up most of the track.
    """
    spread = tracks.points.std(axis=1)  # (N, 2)
    steps = np.linalg.norm(np.diff(tracks.points, axis=1), axis=2)  # (N, L-1)
    longest = steps.max(axis=1, initial=0.0)
    jump = (longest > maximum_step) & (longest > DOMINANT_STEP * steps.sum(axis=1))
    kept = (spread >= minimum_spread).any(axis=1) & (spread <= maximum_spread).all(axis=1) & ~jump
    return Tracks(tracks.starts[kept], tracks.points[kept])


def _seeds(frame: UInt8, occupied: Float32, stride: int) -> Float32:
    """Textured grid points (N, 2) in cells that hold none of the occupied points (A, 2)."""
    height, width = frame.shape
    rows, columns = np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride]
    texture = cv2.cornerMinEigenVal(frame, 3)
    free = texture[rows, columns] > QUALITY * texture.max()
    if len(occupied):
        row, column = (np.minimum(occupied[:, axis] // stride, free.shape[1 - axis] - 1).astype(int) for axis in (1, 0))
        free[row, column] = False
    return np.stack([columns[free], rows[free]], axis=1).astype(np.float32)


def _smooth(field: Float32) -> Float32:
    channels = [cv2.medianBlur(np.ascontiguousarray(field[:, :, c]), MEDIAN_PX) for c in range(2)]
    return np.stack(channels, axis=2)


def _at(field: Float32, points: Float32) -> Float32:
    """Flow (N, 2) at the pixels nearest to points (N, 2) inside the frame."""
    column, row = np.round(points).astype(int).T
    return np.asarray(field[row, column])
