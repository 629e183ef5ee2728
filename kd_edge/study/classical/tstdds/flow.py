"""Optical flow and the two inputs made of it: stacks of fields and the OFSDI.

The flow is OpenCV's dense inverse search. TSTDDs used TV-L1, which OpenCV's main package does not have. Of what it has,
dense inverse search halves the error of Farneback's method wherever the background has the slightest texture, in 0.6
instead of 1.0 ms at 64 x 64 pixels; over a perfectly flat background, where no method can know, it spreads a motion
further. It must go down to the full resolution: frames are small here, and half of it loses a sixth of a slow motion.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from kd_edge.study.classical.tstdds.videos import UInt8
from kd_edge.types import Float32, Int64


def optical_flow(frames: UInt8) -> Float32:
    """Motion from each frame to the next.

    Args:
        frames: (T, S, S) uint8, one channel.

    Returns:
        (T-1, S, S, 2) float32, pixels per frame, x to the right and y down; each field depends on its two frames alone.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """
    flow = np.zeros((max(len(frames) - 1, 0), *frames.shape[1:], 2), dtype=np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setVariationalRefinementIterations(1)  # the preset's five are as good and take twice the time
    for t in range(len(flow)):
        # A given field would be its first guess; OpenCV's stubs do not know that none is allowed.
        flow[t] = search.calc(frames[t], frames[t + 1], None)  # type: ignore[call-overload]
    return flow


def flow_difference_image(flow: Float32) -> Float32:
    """OFSDI, the optical-flow stacked difference image: where motion changed over the whole video.

    ``D = mean_t |F_(t+1) - F_t|``, for x and y apart. The letter stacks the absolute differences of consecutive flow
    images; its weights are not available, so all are equal here. A constant motion gives 0.

    Args:
        flow: (N, S, S, 2) float32.

    Returns:
        (2, S, S) float32, pixels per frame squared; zeros for fewer than two fields.

    Source: Liu et al., "Global Temporal Representation Based CNNs for Infrared Action Recognition", SPL 2018.
    """
    total = np.zeros(flow.shape[1:], dtype=np.float64)
    for before, after in pairwise(flow):  # one by one: no second copy of a long video
        total += np.abs(after - before)
    mean = total / max(len(flow) - 1, 1)
    return np.ascontiguousarray(mean.transpose(2, 0, 1), dtype=np.float32)  # (2, S, S)


def stack_positions(at: int, length: int, fields: int) -> Int64:
    """Positions (length,) of the flow fields around frame ``at``; the first and the last of the video are repeated."""
    first = at - length // 2
    return np.clip(np.arange(first, first + length), 0, fields - 1)


def flow_stack(flow: Float32, positions: Int64) -> Float32:
    """Flow fields as channels, x and y by turns: (2L, S, S) float32 from (N, S, S, 2) and positions (L,)."""
    stack = flow[positions].transpose(0, 3, 1, 2)  # (L, 2, S, S)
    return np.ascontiguousarray(stack.reshape(-1, *flow.shape[1:3]))  # (2L, S, S)
