from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from kd_edge.crop import (
    LEAST_FOCAL,
    MOST_FOCAL,
    WHOLE,
    Crop,
    ForegroundRegion,
    FrameRegion,
    crop_pixels,
    focal_of_view,
    foreground_square,
    view_of_focal,
)
from kd_edge.preprocess import Preprocess, clip_input, crop_inside, evaluation_crop, recorded_input
from kd_edge.types import Clip
from kd_edge.window import FixedWindow, clip_limits

MS = 1_000_000
NEAR = ForegroundRegion(low=1000, high=3000, margin=0.0, minimum_share=0.0, minimum_pixels=2)


def depth_frame(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A rectangle at 2 m before nothing."""
    frame = np.zeros(shape, np.uint16)
    frame[top : top + height, left : left + width] = 2000
    return frame


def pixels(frame: np.ndarray, region: ForegroundRegion) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the square."""
    rows, columns = crop_pixels(frame.shape, foreground_square(frame, region))
    return rows.start, rows.stop, columns.start, columns.stop


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((20, 30, 20, 10), (20, 40, 25, 45)),  # 20 rows x 10 columns: 5 columns more on both sides
        ((20, 30, 10, 20), (15, 35, 30, 50)),  # 10 rows x 20 columns
        ((0, 0, 20, 10), (0, 20, 0, 20)),  # moved into the frame at the top left
        ((40, 70, 20, 10), (40, 60, 60, 80)),  # and at the bottom right
        ((5, 0, 10, 80), (0, 60, 10, 70)),  # wider than the frame is high: the frame's shorter side, about the centre
        ((0, 0, 60, 80), (0, 60, 10, 70)),
        ((30, 40, 2, 2), (30, 32, 40, 42)),  # the smallest that counts
    ],
)
def test_the_square_stands_about_the_bounding_box(
    box: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    assert pixels(depth_frame(*box), NEAR) == expected


def test_the_margin_grows_both_ends_by_a_share_of_the_longer_side() -> None:
    grown = NEAR.model_copy(update={"margin": 0.25})
    assert pixels(depth_frame(20, 30, 20, 10), grown) == (15, 45, 20, 50)  # 20 x (1 + 2 x 0.25) = 30


@pytest.mark.parametrize(("value", "inside"), [(999, False), (1000, True), (3000, True), (3001, False), (0, False)])
def test_both_limits_belong_to_the_foreground(value: int, inside: bool) -> None:
    frame = depth_frame(20, 30, 20, 10)
    frame[frame > 0] = value
    assert pixels(frame, NEAR) == ((20, 40, 25, 45) if inside else (0, 60, 10, 70))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_thermal_frames_of_eight_bits_have_a_foreground_too(dtype: type) -> None:
    frame = np.full((60, 80), 20, dtype)
    frame[20:40, 30:40] = 37
    assert pixels(frame, ForegroundRegion(low=30, high=45, margin=0.0)) == (20, 40, 25, 45)


def test_single_pixels_do_not_widen_the_box() -> None:
    frame = depth_frame(20, 30, 20, 10)
    frame[2, 5] = frame[50, 70] = frame[55, 75] = 2000
    assert pixels(frame, NEAR) == (20, 40, 25, 45)
    assert pixels(frame, NEAR.model_copy(update={"minimum_pixels": 1})) == (0, 60, 10, 70)


def test_a_frame_without_enough_foreground_is_its_central_square() -> None:
    assert pixels(np.zeros((60, 80), np.uint16), NEAR) == (0, 60, 10, 70)
    frame = depth_frame(0, 0, 8, 6)  # 48 of 4800 pixels: 1 %
    assert pixels(frame, NEAR.model_copy(update={"minimum_share": 0.01})) == (0, 8, 0, 8)
    assert pixels(frame, NEAR.model_copy(update={"minimum_share": 0.0101})) == (0, 60, 10, 70)
    line = depth_frame(0, 0, 60, 1)  # every row has one pixel, fewer than minimum_pixels
    assert pixels(line, NEAR) == (0, 60, 10, 70)


def test_the_box_agrees_with_a_search_over_all_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        top, left = rng.integers(0, 40), rng.integers(0, 60)
        frame = depth_frame(top, left, rng.integers(2, 20), rng.integers(2, 20))
        frame[rng.random(frame.shape) < 0.2] = 0
        hits = [(r, c) for r, c in np.ndindex(frame.shape) if 1000 <= frame[r, c] <= 3000]
        rows = [r for r in range(60) if sum(h[0] == r for h in hits) >= 2]
        columns = [c for c in range(80) if sum(h[1] == c for h in hits) >= 2]
        a, b, c, d = pixels(frame, NEAR)
        if not rows or not columns:
            assert (a, b, c, d) == (0, 60, 10, 70)
            continue
        assert b - a == d - c == max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        assert a <= rows[0]
        assert rows[-1] < b
        assert c <= columns[0]
        assert columns[-1] < d


def test_a_mask_is_reused_and_cleared() -> None:
    mask = np.full((60, 80), 77, np.uint8)
    frame = depth_frame(20, 30, 20, 10)
    assert foreground_square(frame, NEAR, mask) == foreground_square(frame, NEAR)
    assert mask.sum() == 200 * 255


def test_a_crop_inside_a_part_is_a_crop_of_the_frame() -> None:
    part = Crop(0.2, 0.4, 0.5, 0.25)
    crop = Crop(0.5, 0.5, 0.5, 0.5, flip=True).inside(part)
    assert (crop.top, crop.left, crop.height, crop.width) == pytest.approx((0.45, 0.525, 0.25, 0.125))
    assert crop.flip
    assert WHOLE.inside(part) == part


def test_the_whole_frame_leaves_a_crop_alone() -> None:
    crop = Crop(0.1, 0.2, 0.3, 0.4)
    assert crop_inside(FrameRegion(), crop, depth_frame(20, 30, 20, 10)) is crop


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"region": {"kind": "foreground", "low": 5, "high": 4}}, "must not exceed high"),
        ({"region": {"kind": "foreground"}, "channels": 3}, "one-channel"),
        ({"region": {"kind": "persons"}}, "'frame', 'foreground', 'person'"),
        ({"region": {"kind": "person", "low": 5, "high": 4}}, "must not exceed high"),
        ({"region": {"kind": "person"}, "channels": 3}, "a person region .* one-channel"),
        ({"window": {"kind": "relative", "low": 5, "high": 4}}, "must not exceed high"),
        ({"window": {"kind": "relative"}, "channels": 3}, "one-channel"),
        ({"region": {"kind": "foreground", "margin": -0.1}}, "greater than or equal to 0"),
    ],
)
def test_inconsistent_regions(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocess.model_validate(values)


def test_settings_without_a_region_mean_the_whole_frame() -> None:
    spec = Preprocess.model_validate({"resize_px": 72, "input_px": 64})
    assert spec.region == FrameRegion()
    crop = evaluation_crop(72, 96, spec)
    assert crop_pixels((72, 96), crop) == (slice(4, 68), slice(16, 80))
    assert Preprocess.model_validate_json(spec.model_dump_json()) == spec
    region = Preprocess(region=ForegroundRegion(low=3))
    assert Preprocess.model_validate_json(region.model_dump_json()) == region
    assert evaluation_crop(72, 96, region) == WHOLE


def still_spec(**changes: object) -> Preprocess:
    values = {
        "resize_px": 60,
        "input_px": 20,
        "window": FixedWindow(low=0, high=4000),
        "region": NEAR,
        "mean": (0.0,),
        "std": (1.0,),
    }
    return Preprocess.model_validate({**values, **changes})


def test_evaluation_shows_all_of_the_square() -> None:
    frame = depth_frame(20, 30, 20, 10)  # the square is 20 pixels wide: no resampling
    image = recorded_input(Clip(frame[None], np.array([0])), np.array([0]), still_spec())[0, 0]
    expected = np.zeros((20, 20), np.float32)
    expected[:, 5:15] = 0.5
    assert np.array_equal(image, expected)


def test_each_frame_has_its_own_square() -> None:
    frames = np.stack([depth_frame(0, 0, 20, 10), depth_frame(40, 70, 20, 10)])
    clip = Clip(frames, np.array([0, 100 * MS]))
    first, second = recorded_input(clip, np.array([0, 1]), still_spec())[:, 0]
    assert (first[:, :10] == 0.5).all()
    assert (first[:, 10:] == 0).all()
    assert (second[:, 10:] == 0.5).all()
    assert (second[:, :10] == 0).all()


def test_a_motion_stack_is_cut_where_its_newest_frame_is() -> None:
    """Who moves right is further left in the older plane, at the same scale."""
    frames = np.stack([depth_frame(20, 26, 20, 10), depth_frame(20, 30, 20, 10)])
    clip = Clip(frames, np.array([0, 70 * MS]))
    spec = still_spec(motion_offsets_ms=(0, 70))
    newest, older = recorded_input(clip, np.array([1]), spec)[0]
    assert np.flatnonzero(newest[0]).tolist() == list(range(5, 15))
    assert np.flatnonzero(older[0]).tolist() == list(range(1, 11))


def test_training_crops_lie_inside_the_square() -> None:
    frame = depth_frame(20, 30, 20, 10)
    frame[20:30, 30:40] = 1000
    limits = clip_limits(np.zeros((1, 2), np.float32), np.array([0]), FixedWindow(low=0, high=4000))
    upper_left = Crop(0.0, 0.0, 0.5, 0.5)  # rows 20 to 30 and columns 25 to 35 of the frame
    spec = still_spec(input_px=10)
    image = clip_input(frame[None], limits, np.array([[0]]), upper_left, spec)[0, 0]
    assert (image[:, :5] == 0).all()
    assert (image[:, 5:] == 0.25).all()


def test_focal_lengths_and_views_are_two_words_for_one_thing() -> None:
    """Half the width is the focal length at 90 degrees; tan 30 degrees is 0.57735."""
    assert focal_of_view(90.0) == pytest.approx(0.5, abs=1e-12)
    assert focal_of_view(60.0) == pytest.approx(0.5 / 0.5773502692, rel=1e-9)
    assert view_of_focal(0.5) == pytest.approx(90.0, abs=1e-12)
    assert view_of_focal(0.89) == pytest.approx(58.65436, abs=1e-5), "a Kinect"
    assert LEAST_FOCAL < focal_of_view(157.0) < focal_of_view(3.0) < MOST_FOCAL, "what a camera file may say"
