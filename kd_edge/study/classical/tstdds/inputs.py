"""What the three streams see: single frames, stacks of flow fields, and the OFSDI of the whole video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kd_edge.study.classical.tstdds.flow import flow_difference_image, flow_stack, optical_flow, stack_positions
from kd_edge.study.classical.tstdds.networks import Draw
from kd_edge.study.classical.tstdds.videos import UInt8, Videos, gray
from kd_edge.types import Float32, Int64

FLOW_BOUND = 1 / 12
"""Flow of this share of the frame's side becomes 1; faster is clipped. 20 of 240 pixels, as flow images have it."""
_BATCH = 64  # inputs in memory at a time


def training_draw(name: str, videos: Videos, ids: Sequence[str], flow_fields: int) -> Draw:
    """What a stream is trained on: a random frame, a random flow stack, or the one OFSDI of a clip."""
    if name == "global":
        # Every epoch would need all fields of every clip, so the images are kept: 8 bytes a pixel and clip.
        images: list[Float32] = [global_input(optical_flow(gray(videos.frames(i)))) for i in ids]
        return lambda clip, rng: images[clip]

    def frame(clip: int, rng: np.random.Generator) -> Float32:
        at = rng.integers(videos.length(ids[clip]), size=1)
        return np.asarray(spatial_inputs(videos.frames(ids[clip], at))[0])

    def stack(clip: int, rng: np.random.Generator) -> Float32:
        length = videos.length(ids[clip])
        positions = stack_positions(int(rng.integers(length)), flow_fields, length - 1)
        first = int(positions[0])
        needed = np.arange(first, int(positions[-1]) + 2)
        return local_input(optical_flow(gray(videos.frames(ids[clip], needed))), positions - first)

    return frame if name == "spatial" else stack


def video_inputs(name: str, frames: UInt8, flow: Float32, flow_fields: int) -> Iterator[Float32]:
    """All inputs of a stream from one video, in batches (n, C, S, S); T of them, or the one of the global stream.

    Args:
        name: Name of the stream: ``spatial``, ``local`` or ``global``.
        frames: (T, S, S) or (T, S, S, 3) uint8.
        flow: (T-1, S, S, 2) float32.
        flow_fields: L, flow fields per stack of the local stream.
    """
    if name == "global":
        yield global_input(flow)[None]
        return
    for first in range(0, len(frames), _BATCH):
        at = range(first, min(first + _BATCH, len(frames)))
        if name == "spatial":
            yield spatial_inputs(frames[at.start : at.stop])
        else:
            yield np.stack([local_input(flow, stack_positions(t, flow_fields, len(flow))) for t in at])


def spatial_inputs(frames: UInt8) -> Float32:
    """(N, S, S[, 3]) uint8 to (N, C, S, S) float32 with 0..255 as -2..2."""
    scaled: Float32 = frames.astype(np.float32) / np.float32(63.75) - np.float32(2)
    return scaled[:, None] if frames.ndim == 3 else np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def local_input(flow: Float32, positions: Int64) -> Float32:
    """A flow stack (2L, S, S) in [-1, 1]."""
    bound = np.float32(FLOW_BOUND * flow.shape[1])
    stack: Float32 = np.clip(flow_stack(flow, positions) / bound, np.float32(-1), np.float32(1))
    return stack


def global_input(flow: Float32) -> Float32:
    """The OFSDI (2, S, S) divided by its largest value; a video without a change of motion stays 0."""
    image = flow_difference_image(flow)
    return np.asarray(image / max(float(image.max()), 1e-6))
