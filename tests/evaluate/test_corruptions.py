"""Corruptions on pictures so small that every value is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kd_edge.evaluate.corruptions import CLEAN, EVERY, KINDS, Corruption, Kind, Sensor, axial_noise, corrupt
from kd_edge.types import Clip

NIR = Sensor("nir", (0, 255))
HEAT = Sensor("lwir", (1000, 5000))
DEPTH = Sensor("depth", (0, 4000))


def of(frames: Any, dtype: str = "uint8") -> Clip:
    array = np.array(frames, dtype=dtype)
    return Clip(array, np.arange(len(array), dtype=np.int64) * 33)


def frames(kind: Kind, severity: int, clip: Clip, sensor: Sensor, sample: str = "a") -> np.ndarray:
    return corrupt(clip, Corruption(kind, severity), sensor, sample).frames


def test_there_are_six_kinds_in_three_degrees_and_the_clean_clip() -> None:
    assert KINDS == ("dots", "fall_off", "saturation", "gain_step", "blur", "noise")
    assert len(EVERY) == 19
    clip = of(np.zeros((2, 3, 3)))
    assert corrupt(clip, CLEAN, NIR, "a") is clip


@pytest.mark.parametrize("corruption", EVERY)
@pytest.mark.parametrize(
    ("sensor", "dtype", "shape"),
    [(NIR, "uint8", (12, 10)), (Sensor("rgb", (0, 255)), "uint8", (12, 10, 3)), (HEAT, "uint16", (12, 10)),
     (DEPTH, "uint16", (12, 10)), (DEPTH, "uint16", (1, 1))],
)  # fmt: skip
def test_a_clip_keeps_its_form_and_the_recording_its_values(
    corruption: Corruption, sensor: Sensor, dtype: str, shape: tuple[int, ...]
) -> None:
    clip = of(np.random.default_rng(0).integers(0, 4000 if dtype == "uint16" else 255, (5, *shape)), dtype)
    before = clip.frames.copy()
    once, again = (corrupt(clip, corruption, sensor, "a") for _ in range(2))
    assert np.array_equal(clip.frames, before)
    assert (once.frames.shape, once.frames.dtype) == (before.shape, before.dtype)
    assert np.array_equal(once.stamps_ns, clip.stamps_ns)
    assert np.array_equal(once.frames, again.frames)


def test_dots_are_bright_stand_still_and_become_more() -> None:
    clip = of(np.full((3, 200, 200), 40))
    lit = [frames("dots", severity, clip, Sensor("nir", (0, 200))) == 200 for severity in (1, 2, 3)]
    for mask, expected in zip(lit, (200, 400, 800), strict=True):
        assert np.array_equal(mask[0], mask[1])
        assert np.array_equal(mask[0], mask[2])
        assert abs(int(mask[0].sum()) - expected) < 4 * expected**0.5
    assert (lit[0] <= lit[1]).all(), "what is lit stays lit"
    assert (lit[1] <= lit[2]).all()
    assert not np.array_equal(frames("dots", 1, clip, NIR, "b"), frames("dots", 1, clip, NIR, "a"))
    colour = frames("dots", 3, of(np.full((1, 50, 50, 3), 40)), NIR)
    assert set(np.unique(colour)) == {40, 255}
    assert np.array_equal(colour[..., 0], colour[..., 2]), "a dot is white"


def test_dots_of_a_depth_camera_are_holes_that_come_and_go() -> None:
    got = frames("dots", 2, of(np.full((2, 200, 200), 2000), "uint16"), DEPTH)
    assert set(np.unique(got)) == {0, 2000}
    assert not np.array_equal(got[0], got[1])
    assert (got[0] == 0).sum() == pytest.approx(6000, abs=300)  # 15 % of 40000


def test_light_falls_off_by_the_squared_distance_from_the_middle() -> None:
    """Half of 0.3 at an edge's middle, 0.3 in a corner."""
    clip = of(np.full((1, 3, 3), 100))
    assert frames("fall_off", 1, clip, NIR)[0].tolist() == [[70, 85, 70], [85, 100, 85], [70, 85, 70]]
    assert frames("fall_off", 3, clip, NIR)[0].tolist() == [[10, 55, 10], [55, 100, 55], [10, 55, 10]]
    warm = frames("fall_off", 2, of(np.full((1, 3, 3), 3000), "uint16"), HEAT)[0]
    assert warm.tolist() == [[1800, 2400, 1800], [2400, 3000, 2400], [1800, 2400, 1800]]  # about 1000
    colour = frames("fall_off", 1, of(np.full((1, 3, 3, 3), 100)), NIR)
    assert colour[0, 0, 1].tolist() == [85, 85, 85]


def test_a_depth_camera_loses_its_corners_by_chance() -> None:
    got = frames("fall_off", 3, of(np.full((400, 3, 3), 2000), "uint16"), DEPTH)
    assert set(np.unique(got)) == {0, 2000}
    assert (got[:, 1, 1] == 2000).all()
    lost = (got == 0).mean(axis=0)
    assert lost[0, 0] == pytest.approx(0.9, abs=0.06)
    assert lost[0, 1] == pytest.approx(0.45, abs=0.1)


def test_too_much_light_is_cut_off_at_the_brightest_value() -> None:
    assert frames("saturation", 1, of([[[10, 100, 200]]]), Sensor("nir", (0, 250)))[0].tolist() == [[15, 150, 250]]
    warm = frames("saturation", 3, of([[[1000, 2000, 4000]]], "uint16"), HEAT)
    assert warm[0].tolist() == [[1000, 4000, 5000]]


def test_too_much_light_takes_the_nearest_measurements_of_a_depth_camera() -> None:
    depth = np.zeros((1, 5, 5), np.uint16)
    depth.flat[:20] = np.arange(1000, 1020)
    for severity, lost in ((1, 1), (2, 3), (3, 6)):  # 5, 15, 30 % of 20
        got = frames("saturation", severity, of(depth, "uint16"), DEPTH)[0].ravel()
        assert got.tolist() == [0] * lost + list(range(1000 + lost, 1020)) + [0] * 5
    flat = frames("saturation", 2, of(np.full((1, 4, 5), 2000), "uint16"), DEPTH)
    assert (flat == 0).sum() == 3, "so many, however many are as near"
    nothing = of(np.zeros((1, 4, 5)), "uint16")
    assert not frames("saturation", 3, nothing, DEPTH).any()


def test_the_gain_steps_in_the_middle() -> None:
    assert frames("gain_step", 1, of(np.full((4, 1, 1), 100)), NIR).ravel().tolist() == [100, 100, 120, 120]
    assert frames("gain_step", 3, of(np.full((5, 1, 1), 200)), NIR).ravel().tolist() == [200, 200, 200, 255, 255]
    assert frames("gain_step", 2, of(np.full((2, 1, 1), 3000), "uint16"), HEAT).ravel().tolist() == [3000, 4000]
    assert frames("gain_step", 1, of(np.full((2, 1, 1), 2000), "uint16"), DEPTH).ravel().tolist() == [2000, 2040]
    assert frames("gain_step", 3, of(np.full((2, 1, 1), 65000), "uint16"), DEPTH).ravel().tolist() == [65000, 65535]


def test_a_point_becomes_a_gaussian() -> None:
    """Of 0.5 % of 200 pixels; the weight of its middle is 1 / (sum of exp(-k^2 / 2) over -4 to 4) = 0.39894."""
    point = np.zeros((1, 200, 200), np.uint16)
    point[0, 100, 100] = 20000
    got = frames("blur", 1, of(point, "uint16"), HEAT)[0]
    assert (got[100, 100], got[100, 101], got[101, 101]) == (3183, 1931, 1171)
    assert got[100, 103] == 35  # exp(-4.5) of the middle


def test_depth_is_blurred_over_what_was_measured() -> None:
    depth = np.full((1, 100, 100), 2000, np.uint16)
    depth[0, 40:60, 40:60] = 0
    assert np.array_equal(frames("blur", 3, of(depth, "uint16"), DEPTH), depth), "a hole stays and shades nothing"
    depth[0, :, :40] = 1000
    got = frames("blur", 3, of(depth, "uint16"), DEPTH)[0]
    assert 1000 < got[10, 39] < got[10, 40] < 2000, "an edge of two distances becomes a slope"
    assert not got[40:60, 40:60].any()


@pytest.mark.parametrize(("severity", "deviation"), [(1, 80), (2, 200), (3, 400)])
def test_noise_is_a_share_of_the_range(severity: int, deviation: float) -> None:
    got = frames("noise", severity, of(np.full((1, 200, 200), 3000), "uint16"), HEAT)[0].astype(float) - 3000
    assert got.std() == pytest.approx(deviation, rel=0.03)
    assert abs(got.mean()) < 4 * deviation / 200


def test_depth_noise_is_a_kinects_times_two_five_and_ten() -> None:
    """1.2 + 1.9 (2.4 - 0.4)^2 = 8.8 mm at 2.4 m."""
    assert axial_noise(np.float32([400, 1400, 2400])).tolist() == pytest.approx([1.2, 3.1, 8.8], rel=1e-6)
    depth = np.full((2, 200, 200), 2400, np.uint16)
    depth[:, :100] = 0
    for severity, deviation in ((1, 17.6), (2, 44.0), (3, 88.0)):
        got = frames("noise", severity, of(depth, "uint16"), DEPTH)
        assert not got[:, :100].any(), "nothing is measured out of nothing"
        assert (got[:, 100:] > 0).all()
        assert got[:, 100:].std() == pytest.approx(deviation, rel=0.03)
        assert not np.array_equal(got[0], got[1])
