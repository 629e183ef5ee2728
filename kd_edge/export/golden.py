"""Create the golden clip, a drawn scene with known logits in the artifact, for a robot's self-test at load time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kd_edge.artifact import GoldenClip
from kd_edge.data import ImageFormat
from kd_edge.export.profile import scaled
from kd_edge.preprocess import Preprocess, recorded_input
from kd_edge.types import Clip, Float32, Image, Int64
from kd_edge.window import FixedWindow

_TINT = np.array([1.0, 0.8, 0.6])  # factors of the three colour channels
_APART_NS = 20_000_000


def golden_clip(
    answer: Callable[[Float32], Float32],
    spec: Preprocess,
    image_format: ImageFormat,
    *,
    segments: int,
    clip_seconds: float,
    bound: float,
) -> GoldenClip:
    """Draw the frames that a window needs and compute their logits.

    The last frame ends the window: pushed one after the other through a recogniser, the frames must produce these
    logits. There is a frame at every segment's time and, for a motion stack, at its offsets before that time.

    Args:
        answer: Maps a clip (1, T, C, S, S) float32 to logits (1, K), usually those of the trained model.
        spec: The preprocessing.
        image_format: Format of the camera's frames.
        segments: Number T of segments in a window.
        clip_seconds: Length of the window.
        bound: The profile's ``golden_tolerance``.
    """
    spacing_ns = round(clip_seconds * 1e9 / segments)
    segments_ns, stamps_ns = golden_stamps(segments, spacing_ns, spec.motion_offsets_ms)
    low, high = image_format.value_range
    if isinstance(spec.window, FixedWindow):  # draw with contrast inside the window
        low, high = max(low, spec.window.low), min(high, spec.window.high)
    side = -(-spec.resize_px * 5 // 4)  # larger than the network's input, so that resizing is tested too
    frames = np.stack(
        [
            draw(float(stamp / stamps_ns[-1]), side, (low, high), image_format.dtype, image_format.channels)
            for stamp in stamps_ns
        ]
    )
    if spec.holes == "left_out":
        frames[:, ::4, ::4] = 0  # a runtime that averages these holes as 0 computes different logits
    inputs = recorded_input(Clip(frames, stamps_ns), np.searchsorted(stamps_ns, segments_ns), spec)
    logits = answer(inputs[None])[0]
    return GoldenClip(frames, stamps_ns, logits, scaled(bound, float(np.abs(logits).max())))


def golden_stamps(segments: int, spacing_ns: int, offsets_ms: tuple[int, ...]) -> tuple[Int64, Int64]:
    """Return the times of the segments and of all frames, as increasing int64 arrays.

    The frames look like a camera's: no two frames are closer than 20 ms (or an eighth of the longest offset), a nearby
    frame is used instead; and no gap inside a motion history exceeds the shortest step of the stack.
    """
    offsets_ns = np.array(offsets_ms, dtype=np.int64) * 1_000_000
    longest_ns = int(offsets_ns[-1])
    apart_ns = max(_APART_NS, longest_ns // 8)
    segments_ns = longest_ns + np.arange(segments, dtype=np.int64) * spacing_ns
    stamps = segments_ns.tolist()
    for offset_ns in offsets_ns:
        for moment in (segments_ns - offset_ns).tolist():
            if min(abs(moment - stamp) for stamp in stamps) >= apart_ns:
                stamps.append(moment)
    stamps.sort()
    if len(offsets_ms) > 1:
        step_ns = int(np.diff(offsets_ns).min())
        stamps += [
            (before + after) // 2
            for before, after in itertools.pairwise(stamps)
            if after - before > step_ns
            and np.any((segments_ns - longest_ns - apart_ns < before) & (after <= segments_ns))
        ]
    return segments_ns, np.array(sorted(stamps), dtype=np.int64)


def draw(phase: float, side: int, value_range: tuple[float, float], dtype: str, channels: int) -> Image:
    """Draw one flat-coloured picture (stripes, a circling disc, a crossing bar) with few edges, so that it packs well.

    Args:
        phase: Phase of the movement, 0 to 1.
        side: Height; the width is 4/3 of it.
        value_range: Raw values of black and white.
        dtype: ``uint8`` or ``uint16``.
        channels: 1 or 3.
    """
    y, x = np.mgrid[0:side, 0 : side * 4 // 3] / side
    scene: npt.NDArray[np.float64] = 0.15 + 0.2 * (np.floor(x * 4) % 2) + 0.1 * (y > 0.7)
    scene[np.abs(x - 4 / 3 * phase) < 0.06] = 0.65
    turn = 2 * np.pi * phase
    scene[(x - 0.66 - 0.25 * np.cos(turn)) ** 2 + (y - 0.5 - 0.25 * np.sin(turn)) ** 2 < 0.03] = 0.95
    low, high = value_range
    if channels == 3:
        scene = scene[:, :, None] * _TINT
    image: Image = np.round(low + scene * (high - low)).astype(dtype)
    return image
