"""Trajectory-pooled deep-convolutional descriptors: feature maps, normalised, summed along the tracks.

Source: Wang, Qiao, Tang, "Action Recognition with Trajectory-Pooled Deep-Convolutional Descriptors", CVPR 2015,
Eq. 3 to 5. TSTDDs pools its three streams in the same way.
"""

from __future__ import annotations

import numpy as np

from kd_edge.study.classical.tstdds.config import TstddsConfig
from kd_edge.study.classical.tstdds.flow import optical_flow
from kd_edge.study.classical.tstdds.inputs import video_inputs
from kd_edge.study.classical.tstdds.networks import Stream
from kd_edge.study.classical.tstdds.trajectories import Tracks, follow, moving
from kd_edge.study.classical.tstdds.videos import Videos, gray
from kd_edge.types import Float32


def video_descriptors(
    config: TstddsConfig, videos: Videos, sample_id: str, streams: dict[str, Stream]
) -> dict[str, Float32]:
    """Descriptors (N, C) of one video by kind: stream, layer and normalisation.

    N is the number of moving tracks; row n is the same track in every kind.
    """
    frames = videos.frames(sample_id)
    one_channel = gray(frames)
    flow = optical_flow(one_channel)
    side, limits = config.frame_px, config.tracks
    tracks = moving(
        follow(one_channel, flow, length=limits.frames, stride=limits.stride_px),
        minimum_spread=limits.minimum_spread * side,
        maximum_spread=limits.maximum_spread * side,
        maximum_step=limits.maximum_step * side,
    )
    found: dict[str, Float32] = {}
    for name, stream in streams.items():
        layers = stream.maps(video_inputs(name, frames, flow, config.streams.flow_fields))
        for layer, maps in zip(config.streams.layers, layers, strict=True):
            found[f"{name} {layer} video"] = pool(normalise_over_video(maps), tracks, (side, side))
            found[f"{name} {layer} channel"] = pool(normalise_over_channels(maps), tracks, (side, side))
    return found


def normalise_over_video(maps: Float32) -> Float32:
    """Spatio-temporal normalisation: each channel divided by its maximum over the video, (T, C, h, w), values >= 0."""
    return _divided(maps, maps.max(axis=(0, 2, 3), keepdims=True))


def normalise_over_channels(maps: Float32) -> Float32:
    """Channel normalisation: each position divided by its maximum over the channels, (T, C, h, w), values >= 0."""
    return _divided(maps, maps.max(axis=1, keepdims=True))


def pool(maps: Float32, tracks: Tracks, size: tuple[int, int]) -> Float32:
    """Sum of the feature map along each track.

    Args:
        maps: (T, C, h, w), one for every frame of the video; (1, C, h, w) is the same for all.
        tracks: N of them, in pixels of the frame.
        size: (height, width) of the frame.

    Returns:
        (N, C) float32; a point takes the cell of the map that its pixel's centre lies in.
    """
    cells = np.array(maps.shape[:1:-1]) / np.array(size[::-1])  # map cells per pixel, x and y
    column, row = np.moveaxis(((tracks.points + 0.5) * cells).astype(np.int64), 2, 0)  # (N, L) each
    column, row = np.minimum(column, maps.shape[3] - 1), np.minimum(row, maps.shape[2] - 1)
    pooled = np.zeros((len(tracks), maps.shape[1]), dtype=np.float32)
    for p in range(column.shape[1]):  # point by point: (N, C) at a time, not (N, L, C)
        frame = np.zeros_like(tracks.starts) if len(maps) == 1 else tracks.starts + p
        pooled += maps[frame, :, row[:, p], column[:, p]]
    return pooled


def _divided(maps: Float32, largest: Float32) -> Float32:
    """What is 0 everywhere stays 0."""
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
