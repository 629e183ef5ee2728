"""Where a person is in a frame, and what the network sees of the square about them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kd_edge.crop import Crop, PersonRegion
from kd_edge.person import LowPass, PersonTrack, Place, clip_places, measure, person_square
from kd_edge.preprocess import Preprocess, cut, recorded_input
from kd_edge.types import Clip
from kd_edge.window import FixedWindow, RelativeWindow, WindowLimits, own_limits

MS = 1_000_000
DEPTH = PersonRegion(low=1000, high=3000, side_m=2.0, focal=0.5, minimum_share=0.0)
THERMAL = PersonRegion(low=30, high=45, side_m=2.0, height_m=1.6, minimum_share=0.0)


def depth_frame(top: int, left: int, height: int, width: int, value: int = 2000) -> np.ndarray:
    frame = np.zeros((60, 80), np.uint16)
    frame[top : top + height, left : left + width] = value
    return frame


def test_the_centre_is_the_median_and_the_scale_follows_the_distance() -> None:
    """The middle of rows 20 to 40 and columns 30 to 40; at 2 m, a metre covers 0.5 / 2 of the width."""
    assert measure(depth_frame(20, 30, 20, 10), DEPTH) == (0.4375, 0.5, 0.25)
    assert measure(depth_frame(20, 30, 20, 10, 1000), DEPTH).scale == 0.5
    odd = measure(depth_frame(20, 30, 5, 3), DEPTH)  # inside a pixel: 22.5 of 60 rows, 31.5 of 80 columns
    assert odd == pytest.approx((31.5 / 80, 0.375, 0.25))


def test_an_arm_hardly_moves_the_centre() -> None:
    frame = depth_frame(20, 30, 20, 10)
    frame[25:27, 40:60] = 2000  # 40 pixels beside 200
    assert measure(frame, DEPTH).x * 80 == pytest.approx(36.0)  # the box's centre would be at 45


def test_without_distances_the_scale_is_that_of_the_persons_height() -> None:
    frame = np.full((60, 80), 20, np.uint8)
    frame[10:50, 30:40] = 37  # 96 % of 40 rows are 1.6 m
    assert measure(frame, THERMAL) == pytest.approx((35 / 80, 0.5, 0.96 * 40 / 80 / 1.6), rel=1e-6)


def test_few_pixels_are_nobody() -> None:
    frame = depth_frame(0, 0, 8, 6)  # 48 of 4800 pixels
    shown = measure(frame, DEPTH.model_copy(update={"minimum_share": 0.01}))
    assert not math.isnan(shown.x)
    for region in (DEPTH.model_copy(update={"minimum_share": 0.0101}), DEPTH):
        assert all(math.isnan(v) for v in measure(frame if region is not DEPTH else frame * 0, region))


def test_the_square_is_of_one_size_in_the_world_and_may_leave_the_frame() -> None:
    """2 m at 0.25 widths a metre are 40 pixels."""
    square = person_square(Place(0.4375, 0.5, 0.25), DEPTH, (60, 80))
    assert (square.top * 60, square.left * 80) == pytest.approx((10, 15))
    assert (square.height * 60, square.width * 80) == pytest.approx((40, 40))
    assert square.is_free
    near = person_square(Place(0.0, 0.0, 0.5), DEPTH, (60, 80))
    assert (near.top * 60, near.left * 80) == pytest.approx((-40, -40))
    nobody = person_square(Place(*[math.nan] * 3), DEPTH, (60, 80))
    assert (nobody.top * 60, nobody.left * 80, nobody.width * 80) == pytest.approx((0, 10, 60))


def test_a_low_pass_goes_a_known_share_of_the_way() -> None:
    smooth = LowPass(100)
    assert math.isnan(smooth.of((math.nan, math.nan), 0)[0])
    assert smooth.of((1.0, 2.0), 50 * MS) == (1.0, 2.0)  # the first ones as they are
    first, second = smooth.of((2.0, 0.0), 150 * MS)  # one time constant: 1 - 1/e of the way
    assert (first, second) == pytest.approx((1 + 0.632121, 2 - 2 * 0.632121), abs=1e-6)
    assert smooth.of((math.nan, math.nan), 250 * MS) == (first, second)
    smooth.reset()
    assert smooth.of((5.0, 5.0), 0) == (5.0, 5.0)
    assert LowPass(0).of((3.0,), 9) == (3.0,)


def test_a_recorded_clip_is_smoothed_as_a_stream() -> None:
    rng = np.random.default_rng(0)
    own = rng.random((12, 3), dtype=np.float32)
    own[[0, 5]] = np.nan
    stamps = np.cumsum(rng.integers(20, 50, 12)).astype(np.int64) * MS
    track = PersonTrack(DEPTH)
    live = [track.of(Place(*row), int(stamp)) for row, stamp in zip(own.tolist(), stamps, strict=True)]
    found = clip_places(own, stamps, DEPTH)
    assert np.array_equal(found, np.array(live, np.float32), equal_nan=True)
    assert np.isnan(found[0]).all()
    assert np.array_equal(found[5], found[4])
    assert clip_places(own[:0], stamps[:0], DEPTH).shape == (0, 3)


def test_a_free_crop_at_whole_pixels_is_a_slice_and_black_beyond_the_frame() -> None:
    frame = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    inside = cut(frame, Crop(10 / 60, 20 / 80, 16 / 60, 16 / 80, is_free=True), 16)
    assert np.array_equal(inside, frame[10:26, 20:36])
    mirrored = cut(frame, Crop(10 / 60, 20 / 80, 16 / 60, 16 / 80, flip=True, is_free=True), 16)
    assert np.array_equal(mirrored, frame[10:26, 20:36][:, ::-1])
    beyond = cut(frame, Crop(-8 / 60, 72 / 80, 16 / 60, 16 / 80, is_free=True), 16)
    assert np.array_equal(beyond[8:, :8], frame[:8, 72:])
    assert not beyond[:8].any()
    assert not beyond[:, 8:].any()


def test_a_crop_turned_by_a_right_angle() -> None:
    """Clockwise as one sees it: its left edge is the frame's upper one, so what it shows is turned the other way."""
    frame = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    turned = cut(frame, Crop(10 / 60, 20 / 80, 16 / 60, 16 / 80, is_free=True, turn_degrees=90), 16)
    assert np.array_equal(turned, np.rot90(frame[10:26, 20:36]))


def test_a_crop_inside_a_free_square_stays_free() -> None:
    part = Crop(-0.5, 0.0, 1.0, 2.0, is_free=True)
    crop = Crop(0.25, 0.25, 0.5, 0.5, turn_degrees=5.0).inside(part)
    assert (crop.top, crop.left, crop.height, crop.width) == (-0.25, 0.5, 0.5, 1.0)
    assert (crop.is_free, crop.turn_degrees) == (True, 5.0)


def test_a_relative_window_is_centred_on_the_foregrounds_median() -> None:
    window = RelativeWindow(low=1000, high=3000, span=500, time_constant_ms=0, minimum_share=0.0)
    frame = depth_frame(20, 30, 20, 10, 2200)
    frame[0, 0] = 5000  # neither near nor far enough away: no foreground
    assert own_limits(frame, window) == (2200, 2200)
    assert math.isnan(own_limits(frame * 0, window)[0])
    limits = WindowLimits(window)
    assert limits.of(frame * 0, 0) == (1500, 2500)  # nobody yet: the middle of the range
    assert limits.of(frame, 1) == (1700, 2700)
    assert limits.of(frame * 0, 2) == (1700, 2700)


def test_what_is_beyond_the_foreground_is_black_as_what_was_not_measured() -> None:
    window = RelativeWindow(low=1000, high=3000, span=500, time_constant_ms=0)
    spec = Preprocess(resize_px=60, input_px=40, window=window, region=DEPTH, mean=(0.0,), std=(1.0,))
    frame = np.full((60, 80), 3001, np.uint16)
    frame[10:50, 15:55] = 2000  # the square of 2 m: 40 pixels about (35, 30)
    for row, value in enumerate((0, 2250, 3001)):
        frame[10 + row, 15] = frame[49 - row, 54] = value  # the centre stays
    image = recorded_input(Clip(frame[None], np.array([0])), np.array([0]), spec)[0, 0]
    assert image[:4, 0] == pytest.approx([0.0, 0.75, 0.0, 0.5])
    assert image[-4:, -1] == pytest.approx([0.5, 0.0, 0.75, 0.0])
    assert (image[:, 1:-1] == 0.5).all()


def test_a_person_looks_alike_wherever_they_stand() -> None:
    spec = Preprocess(
        resize_px=60, input_px=20, window=FixedWindow(low=0, high=1), region=DEPTH, mean=(0.0,), std=(1.0,)
    )
    near, far = depth_frame(12, 20, 32, 16, 1250), depth_frame(30, 50, 16, 8, 2500)
    images = recorded_input(Clip(np.stack([near, far]), np.array([0, 5000 * MS])), np.array([0, 1]), spec)[:, 0]
    assert images[0].sum() == images[1].sum() == 10 * 6  # a metre by half of one, of 2 m on 20 pixels, and its edge
    assert np.array_equal(images[0], images[1])
