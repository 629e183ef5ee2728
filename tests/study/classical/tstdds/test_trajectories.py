from __future__ import annotations

import numpy as np
import pytest

from kd_edge.study.classical.tstdds.flow import optical_flow
from kd_edge.study.classical.tstdds.trajectories import Tracks, follow, moving
from kd_edge.study.classical.tstdds.videos import UInt8
from kd_edge.types import Float32

SIDE, STRIDE = 32, 4
GRID = (SIDE // STRIDE) ** 2


def noise(frames: int, side: int = SIDE) -> UInt8:
    """The same texture in every frame, so that every grid point is worth following."""
    image = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    return np.repeat(image[None], frames, axis=0)


def uniform(frames: int, dx: float, dy: float, side: int = SIDE) -> Float32:
    return np.broadcast_to(np.float32([dx, dy]), (frames - 1, side, side, 2))


def moving_square(frames: int, dx: float, dy: float) -> UInt8:
    """A textured square of 20 pixels, moved by sub-pixel steps over a flat background of 64."""
    y, x = np.mgrid[:64, :64].astype(float)
    images = []
    for t in range(frames):
        u, v = x - 12 - t * dx, y - 30 - t * dy
        inside = (u >= 0) & (u < 20) & (v >= 0) & (v < 20)
        texture = 150 + 40 * np.sin(0.9 * u) * np.cos(0.8 * v) + 30 * np.sin(0.5 * u + 0.6 * v)
        images.append(np.where(inside, texture, 40))
    return np.round(np.stack(images)).astype(np.uint8)


def test_points_add_up_the_flow_exactly() -> None:
    tracks = follow(noise(6), uniform(6, 0.5, -0.25), length=6, stride=STRIDE)
    assert tracks.points.shape[1:] == (6, 2)
    steps = np.arange(6)[:, None] * np.float32([0.5, -0.25])
    np.testing.assert_array_equal(tracks.points, tracks.points[:, :1] + steps)
    # 2, 6, ... 30: x reaches 32.5 from the last column, y 0.75 from the first row; 31 is the frame's last pixel
    assert sorted(set(tracks.points[:, 0, 0].tolist())) == [2, 6, 10, 14, 18, 22, 26]
    assert sorted(set(tracks.points[:, 0, 1].tolist())) == [2, 6, 10, 14, 18, 22, 26, 30]


@pytest.mark.parametrize(("frames", "generations"), [(2, 0), (3, 1), (5, 1), (6, 2), (9, 3)])
def test_a_cell_gets_a_new_track_when_its_old_one_is_complete(frames: int, generations: int) -> None:
    tracks = follow(noise(frames), uniform(frames, 0, 0), length=3, stride=STRIDE)
    assert len(tracks) == generations * GRID
    assert sorted(set(tracks.starts.tolist())) == [3 * g for g in range(generations)]


def test_no_track_starts_in_a_cell_that_has_one() -> None:
    frames = noise(4)
    frames[:, :, :20] = frames[:, 10:] = 90  # texture in the upper right corner alone: rows and columns differ
    tracks = follow(frames, uniform(4, 0, 0), length=3, stride=STRIDE)
    assert len(tracks) == 4 * 3  # columns 18 to 30, rows 2 to 10: the edge of the texture counts
    assert set(tracks.starts.tolist()) == {0}


def test_a_flat_frame_has_nothing_to_follow() -> None:
    flat = np.full((5, SIDE, SIDE), 90, dtype=np.uint8)
    assert len(follow(flat, uniform(5, 0, 0), length=3, stride=STRIDE)) == 0


def test_an_outlier_of_one_pixel_is_filtered_away() -> None:
    flow = uniform(3, 0, 0).copy()
    flow[0, 6, 6] = 9.0  # a grid point
    tracks = follow(noise(3), flow, length=3, stride=STRIDE)
    assert len(tracks) == GRID
    assert not np.diff(tracks.points, axis=1).any()


def test_tracks_follow_a_moving_square() -> None:
    frames = moving_square(16, 1.0, -0.5)
    every = follow(frames, optical_flow(frames), length=15, stride=STRIDE)
    tracks = moving(every, minimum_spread=0.5, maximum_spread=13, maximum_step=5)
    first = tracks.points[tracks.starts == 0]
    inside = first[((first[:, 0] >= [15, 33]) & (first[:, 0] <= [28, 46])).all(axis=1)]
    assert len(inside) >= 9
    travelled = inside[:, -1] - inside[:, 0]
    np.testing.assert_allclose(np.median(travelled, axis=0), [14.0, -7.0], atol=0.7)


def test_tracks_of_a_still_scene_are_all_static() -> None:
    frames = noise(16)
    every = follow(frames, optical_flow(frames), length=15, stride=STRIDE)
    assert len(every) == GRID
    assert len(moving(every, minimum_spread=0.2, maximum_spread=10, maximum_step=5)) == 0


def test_static_and_runaway_tracks_are_dropped() -> None:
    ramp = np.arange(5, dtype=np.float32)
    still = np.zeros(5, dtype=np.float32)
    xy = [
        (still, still),  # static
        (0.1 * ramp, 0.1 * ramp),  # standard deviation 0.141: static
        (ramp, still),  # 1.414: kept
        (still, -ramp),  # kept
        (4 * ramp, still),  # 5.66: runaway
        (np.float32([0, 0, 6, 6, 6]), still),  # 2.94, but all in one step of 6: runaway
        (np.float32([0, 3, -3, 3, -3]), still),  # steps of 6 that are not most of the way: kept
    ]
    points = np.stack([np.stack(pair, axis=1) for pair in xy])
    tracks = Tracks(np.arange(len(xy)), points)
    kept = moving(tracks, minimum_spread=0.2, maximum_spread=5, maximum_step=5)
    assert kept.starts.tolist() == [2, 3, 6]
    np.testing.assert_array_equal(kept.points, points[[2, 3, 6]])


def test_no_tracks_stay_no_tracks() -> None:
    none = Tracks(np.zeros(0, dtype=np.int64), np.zeros((0, 15, 2), dtype=np.float32))
    assert len(moving(none, minimum_spread=0.2, maximum_spread=5, maximum_step=5)) == 0
