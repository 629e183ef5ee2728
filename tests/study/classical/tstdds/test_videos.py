from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from kd_edge.study.classical.tstdds.videos import Videos, gray
from kd_edge.window import FixedWindow, PercentileWindow


def cache_of(frames: np.ndarray, limits: np.ndarray) -> Any:
    clip = SimpleNamespace(frames=frames, stamps_ns=np.arange(len(frames)) * 33_000_000, own_limits=limits)
    return SimpleNamespace(clip=lambda sample_id: {"only": clip}[sample_id])


def test_a_fixed_window_and_the_central_square() -> None:
    frames = np.zeros((3, 2, 4), dtype=np.uint16)
    frames[1] = [[9000, 1000, 2000, 9000], [9000, 3000, 4000, 9000]]
    videos = Videos(cache_of(frames, np.zeros((3, 2), np.float32)), FixedWindow(low=1500, high=3500), 2)
    assert videos.length("only") == 3
    squares = videos.frames("only")
    assert (squares.shape, squares.dtype) == ((3, 2, 2), np.uint8)
    assert squares[1].tolist() == [[0, 64], [191, 255]]  # 63.75 and 191.25 are rounded
    np.testing.assert_array_equal(videos.frames("only", np.array([2, 1])), squares[[2, 1]])


def test_a_percentile_window_is_smoothed_from_the_start_whichever_frames_are_asked_for() -> None:
    frames = np.full((3, 2, 2), 150, dtype=np.uint8)
    limits = np.float32([[100, 200], [150, 250], [150, 250]])
    videos = Videos(cache_of(frames, limits), PercentileWindow(time_constant_ms=0), 2)
    assert videos.frames("only")[:, 0, 0].tolist() == [128, 0, 0]  # half of 255 is rounded to even
    slow = Videos(cache_of(frames, limits), PercentileWindow(time_constant_ms=33), 2)
    last = slow.frames("only", np.array([2]))[0, 0, 0]
    assert last == slow.frames("only")[2, 0, 0]
    low = 150 - 50 * np.exp(-2)  # two steps of one time constant each
    assert abs(int(last) - 255 * (150 - low) / 100) < 1


def test_gray_weighs_the_colours_and_leaves_one_channel_alone() -> None:
    colour = np.zeros((2, 1, 3, 3), dtype=np.uint8)
    colour[:, 0, 0, 0] = colour[:, 0, 1, 1] = colour[:, 0, 2, 2] = 200
    assert gray(colour)[0, 0].tolist() == [60, 117, 23]  # 0.299, 0.587 and 0.114 of 200
    one = colour[..., 0]
    assert gray(one) is one
