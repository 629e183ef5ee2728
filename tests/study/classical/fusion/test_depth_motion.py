"""Motion maps of a clip of 4 x 4 pixels by hand, their boxes and sizes."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.errors import DataError
from kd_edge.study.classical.fusion.config import MotionConfig, Projection
from kd_edge.study.classical.fusion.depth_motion import box, motion_maps, resized, trimmed
from kd_edge.study.classical.fusion.motion_features import depth_vector, motion_images, unit_length


@pytest.fixture
def clip() -> np.ndarray:
    """Bins of 10 mm; all in row 1. A pixel goes back from 15 to 25 mm and vanishes; two more come up at 15 mm."""
    frames = np.zeros((3, 4, 4), dtype=np.uint16)
    frames[0, 1, 1] = 15
    frames[1, 1] = [0, 25, 15, 15]
    frames[2, 1] = [0, 0, 15, 15]
    return frames


def filled(shape: tuple[int, int], **values: float) -> np.ndarray:
    """Zeros but for values by ``r<row>c<column>``."""
    whole = np.zeros(shape)
    for place, value in values.items():
        whole[int(place[1]), int(place[3])] = value
    return whole


def test_the_front_view(clip: np.ndarray) -> None:
    front = motion_maps(clip, bin_mm=10, range_mm=40).front
    assert front == pytest.approx(filled((4, 4), r1c1=10 + 25, r1c2=15, r1c3=15))
    measured = motion_maps(clip, bin_mm=10, range_mm=40, silhouette=False).front
    assert measured == pytest.approx(filled((4, 4), r1c1=10))


@pytest.mark.parametrize(("projection", "near"), [("occupied", 0), ("counts", 1)])
def test_the_side_and_the_top_view(clip: np.ndarray, projection: Projection, near: int) -> None:
    """Bin 1 holds one pixel, then two: it stays occupied. Bin 2 is occupied in the middle frame alone."""
    maps = motion_maps(clip, bin_mm=10, range_mm=50, projection=projection)
    assert maps.side == pytest.approx(filled((4, 5), r1c1=near, r1c2=2))
    assert maps.top == pytest.approx(filled((5, 4), r1c1=1, r1c2=1, r1c3=1, r2c1=2))


def test_pairs_of_frames_are_weighted(clip: np.ndarray) -> None:
    maps = motion_maps(clip, bin_mm=10, range_mm=40, weights=np.array([0.25, 1.0]))
    assert maps.front == pytest.approx(filled((4, 4), r1c1=2.5 + 25, r1c2=3.75, r1c3=3.75))
    assert maps.side == pytest.approx(filled((4, 4), r1c2=1.25))


def test_far_pixels_count_as_the_last_bin() -> None:
    frames = np.zeros((2, 1, 1), dtype=np.uint16)
    frames[1] = 65535
    maps = motion_maps(frames, bin_mm=30, range_mm=100)
    assert maps.side.tolist() == [[0, 0, 0, 1]]
    assert maps.front.tolist() == [[65535]]  # the difference does not wrap around


@pytest.mark.parametrize("frames", [np.zeros((1, 4, 4), np.uint16), np.zeros((3, 4, 4), np.float32)])
def test_what_is_no_depth_clip_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"a clip of .*Expected two depth images or more"):
        motion_maps(frames, bin_mm=10, range_mm=40)


def test_the_box_leaves_out_what_does_not_move() -> None:
    motion = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 100, 0]], dtype=np.float32)
    assert box(motion) == (slice(1, 3), slice(1, 3))
    assert box(motion, 0.02) == (slice(2, 3), slice(2, 3))
    assert box(np.zeros((2, 3), np.float32)) == (slice(0, 2), slice(0, 3))


def test_a_smaller_size_takes_means_over_areas() -> None:
    motion = np.array([[1, 3, 0, 0], [5, 7, 0, 8]], dtype=np.float32)
    assert resized(motion, 1, 2) == pytest.approx(np.array([[4, 2]]))
    assert resized(np.array([[2]], np.float32), 3, 2) == pytest.approx(np.full((3, 2), 2))


@pytest.mark.parametrize(
    ("length", "count", "kept"), [(20, 5, (5, 15)), (20, 0, (0, 20)), (7, 5, (2, 5)), (2, 5, (0, 2))]
)
def test_both_ends_are_left_out_as_far_as_two_frames_stay(length: int, count: int, kept: tuple[int, int]) -> None:
    frames = np.arange(length, dtype=np.uint16).reshape(-1, 1, 1)
    assert trimmed(frames, count).ravel().tolist() == list(range(*kept))


def config(**changes: object) -> MotionConfig:
    values = {"trim_frames": 0, "bin_mm": 10, "range_mm": 100, "silhouette": True, "crop_share": 0}
    return MotionConfig.model_validate(values | {"height": 2, "width": 3, "depth": 2} | changes)


def test_the_vector_is_the_views_one_after_the_other(clip: np.ndarray) -> None:
    """Front: one row of 35, 15, 15, stretched to two; side: one row of one bin; top: two rows of three columns."""
    vector = depth_vector(clip, config(), "max")
    assert vector == pytest.approx([1, 3 / 7, 3 / 7] * 2 + [1] * 4 + [0.5, 0.5, 0.5, 1, 0, 0])
    assert depth_vector(clip, config(views=["side"]), "max") == pytest.approx([1] * 4)


def test_roots_have_length_one_in_each_view(clip: np.ndarray) -> None:
    vector = depth_vector(clip, config(), "root")
    assert [np.linalg.norm(part) for part in np.split(vector, [6, 10])] == pytest.approx([1, 1, 1])
    assert vector[:3] == pytest.approx(np.sqrt([35, 15, 15]) / np.sqrt(2 * 65))


def test_a_clip_without_motion_is_all_zeros() -> None:
    still = np.full((6, 4, 4), 55, dtype=np.uint16)
    for normalisation in ("max", "root"):
        assert not depth_vector(still, config(), normalisation).any()
    assert not motion_images(still, config()).any()
    assert not unit_length(np.zeros((2, 3))).any()


def test_images_tell_the_end_of_a_clip_from_its_start(clip: np.ndarray) -> None:
    """Rising weights 0 and 1 see the second change alone, falling ones the first; shares of the largest value, 35."""
    images = motion_images(clip, config(height=1))
    assert images.shape == (6, 1, 1)
    late_front, early_front = 25 / 35 / 3, (10 + 15 + 15) / 35 / 3
    assert images[[0, 3], 0, 0] == pytest.approx(np.sqrt([late_front, early_front]))
    assert images[[1, 4], 0, 0] == pytest.approx(np.sqrt([0.5, 0.5]))
    reverse = motion_images(clip[::-1], config(height=1))
    assert reverse[:3] == pytest.approx(images[3:])
