from __future__ import annotations

import numpy as np

from kd_edge.study.classical.tstdds.descriptors import normalise_over_channels, normalise_over_video, pool
from kd_edge.study.classical.tstdds.trajectories import Tracks
from kd_edge.types import Float32


def example() -> Float32:
    """(2 frames, 2 channels, 1, 2); the second channel's largest value stands in the second frame."""
    return np.array([[[[1.0, 4.0]], [[2.0, 0.0]]], [[[0.0, 2.0]], [[8.0, 2.0]]]], dtype=np.float32)


def test_over_the_video_each_channel_has_its_own_maximum() -> None:
    expected = [[[[0.25, 1.0]], [[0.25, 0.0]]], [[[0.0, 0.5]], [[1.0, 0.25]]]]
    np.testing.assert_array_equal(normalise_over_video(example()), np.float32(expected))


def test_over_the_channels_each_place_has_its_own_maximum() -> None:
    expected = [[[[0.5, 1.0]], [[1.0, 0.0]]], [[[0.0, 1.0]], [[1.0, 1.0]]]]
    np.testing.assert_array_equal(normalise_over_channels(example()), np.float32(expected))


def test_what_is_zero_everywhere_stays_zero() -> None:
    maps = example()
    maps[:, 1] = 0
    np.testing.assert_array_equal(normalise_over_video(maps)[:, 1], 0)
    maps[:, :, 0, 0] = 0
    over_channels = normalise_over_channels(maps)
    np.testing.assert_array_equal(over_channels[:, :, 0, 0], 0)
    assert np.isfinite(over_channels).all()


def maps_of_two_by_two() -> Float32:
    """Channel 0 is 100 t + 10 row + column; channel 1 its negative."""
    t, row, column = np.mgrid[:4, :2, :2]
    values = 100 * t + 10 * row + column
    return np.stack([values, -values], axis=1).astype(np.float32)


def test_a_track_sums_the_cells_it_passes() -> None:
    # a frame of 8 x 8 pixels: pixels 0..3 are cell 0, 4..7 are cell 1; 3.4 is still in pixel 3, 3.6 in pixel 4
    points = np.float32([[[0, 0], [3.4, 7], [7, 3.6]], [[7, 7], [7, 7], [7, 7]]])
    tracks = Tracks(np.array([0, 1]), points)
    pooled = pool(maps_of_two_by_two(), tracks, (8, 8))
    first = (0 + 0 + 0) + (100 + 10 + 0) + (200 + 10 + 1)
    second = 111 + 211 + 311
    np.testing.assert_array_equal(pooled, np.float32([[first, -first], [second, -second]]))


def test_one_map_serves_every_frame() -> None:
    tracks = Tracks(np.array([5]), np.float32([[[0, 0], [7, 0], [7, 7]]]))
    pooled = pool(maps_of_two_by_two()[1:2], tracks, (8, 8))
    np.testing.assert_array_equal(pooled, np.float32([[100 + 101 + 111, -312]]))


def test_rows_and_columns_are_not_swapped_on_a_wide_map() -> None:
    maps = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    tracks = Tracks(np.array([0, 0]), np.float32([[[11, 0]], [[0, 5]]]))  # the last column, the last row
    np.testing.assert_array_equal(pool(maps, tracks, (6, 12)), np.float32([[2], [3]]))


def test_no_track_gives_no_descriptor() -> None:
    none = Tracks(np.zeros(0, dtype=np.int64), np.zeros((0, 3, 2), dtype=np.float32))
    assert pool(maps_of_two_by_two(), none, (8, 8)).shape == (0, 2)
