import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_edge.errors import KdEdgeError
from kd_edge.sampling import gather, motion_indices, nearest, nearest_one, segment_indices

MS = 1_000_000


@pytest.mark.parametrize(
    ("frames", "segments", "expected"),
    [
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),  # one frame each
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),  # int(1 + 2 k)
        (67, 8, [4, 12, 20, 29, 37, 46, 54, 62]),  # tick 8.375: int(4.1875 + 8.375 k)
        (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),  # fewer frames than segments: spread evenly
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_centre_is_the_tsn_test_rule(frames: int, segments: int, expected: list[int]) -> None:
    assert segment_indices(frames, segments, mode="centre").tolist() == expected


@given(st.integers(1, 400), st.integers(1, 32), st.integers(0, 2**32 - 1))
def test_random_takes_one_frame_of_each_part(frames: int, segments: int, seed: int) -> None:
    chosen = segment_indices(frames, segments, mode="random", rng=np.random.default_rng(seed))
    assert chosen.shape == (segments,)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) >= 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < frames
    if frames >= segments:
        part = frames // segments
        assert (chosen // part == np.arange(segments)).all()


def test_random_reaches_every_frame_of_a_part() -> None:
    rng = np.random.default_rng(0)
    seen = {int(segment_indices(12, 3, mode="random", rng=rng)[1]) for _ in range(200)}
    assert seen == {4, 5, 6, 7}


def test_random_needs_a_generator() -> None:
    with pytest.raises(KdEdgeError, match="generator"):
        segment_indices(10, 2, mode="random")


@pytest.mark.parametrize(("frames", "segments"), [(0, 8), (8, 0)])
def test_nothing_to_sample(frames: int, segments: int) -> None:
    with pytest.raises(KdEdgeError, match=f"{frames} frames for {segments} segments"):
        segment_indices(frames, segments, mode="centre")


def test_nearest_prefers_the_earlier_on_a_tie() -> None:
    stamps = np.array([0, 10, 20], np.int64)
    assert nearest(stamps, np.array([-5, 4, 5, 6, 15, 99], np.int64)).tolist() == [0, 0, 0, 1, 1, 2]


@given(st.lists(st.integers(0, 10_000), min_size=1, unique=True), st.integers(-100, 10_100))
def test_nearest_agrees_with_a_search_of_all(stamps: list[int], target: int) -> None:
    ordered = np.array(sorted(stamps), np.int64)
    expected = int(np.abs(ordered - target).argmin())  # argmin also takes the first of equals
    assert nearest(ordered, np.array([target], np.int64)).tolist() == [expected]
    assert nearest_one(sorted(stamps), target) == expected


@pytest.mark.parametrize(
    ("stamps_ms", "now_ms", "expected"),
    [
        ([0, 100, 200, 300], 300, [0, 1, 2, 3]),  # on the grid
        ([50, 140, 240, 300], 300, [0, 1, 2, 3]),  # the oldest exactly half a spacing off: still inside
        ([51, 150, 250, 300], 300, None),  # oldest segment 51 ms off: a gap
        ([100, 200, 300], 300, None),  # does not span the window
        ([], 300, None),
        ([0, 33, 66, 100, 133, 166, 200, 233, 266, 300], 300, [0, 3, 6, 9]),  # 30 fps
    ],
)
def test_gather(stamps_ms: list[int], now_ms: int, expected: list[int] | None) -> None:
    stamps = np.array(stamps_ms, np.int64) * MS
    chosen = gather(stamps, now_ms * MS, 4, 100 * MS)
    assert (None if chosen is None else chosen.tolist()) == expected


def test_motion_stack_at_30_fps_looks_two_and_four_frames_back() -> None:
    stamps = np.arange(30, dtype=np.int64) * 1_000_000_000 // 30
    assert motion_indices(stamps, np.array([10, 1, 0]), (0, 70, 140)).tolist() == [[10, 8, 6], [1, 0, 0], [0, 0, 0]]
