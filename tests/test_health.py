from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from kd_edge.health import Familiarity, FeatureReference, Picture, PictureBounds, PictureHealth, PictureMeter
from kd_edge.types import LabelState, Reason

MS = 1_000_000
SLOPE = np.tile(np.arange(16, dtype=np.uint8) * 10, (16, 1))
STEP = np.repeat(np.uint8([[0, 200]]), 8, axis=1).repeat(16, axis=0)
RNG = np.random.default_rng(0)
BOUNDS = PictureBounds(
    mean=20, contrast=5, saturated=0.2, measured=0.5, grain=0.9, sharpness=0.3, noise=0.25, moves=True,
    saturation=250, clips=1, frames=1,
)  # fmt: skip
GOOD = Picture(mean=60, contrast=30, saturated=0, measured=1, grain=0.5, sharpness=0.6, noise=0.1, change=3)


def figures(*images: np.ndarray, ignore: int | None = None) -> Picture:
    """Of the last of the images."""
    meter = PictureMeter(images[0], 250, ignore)
    return [meter.measure(image) for image in images][-1]


def noise_like(deviation: float, shape: tuple[int, ...] = (60, 64)) -> np.ndarray:
    return np.clip(np.round(128 + RNG.normal(0, deviation, shape)), 0, 255).astype(np.uint8)


def test_uniform_picture():
    assert figures(np.full((16, 16), 100, np.uint8)) == (100, 0, 0, 1, 0, 0, 0, math.inf)


def test_slope_and_step():
    slope, step = figures(SLOPE), figures(STEP)
    assert (slope.mean, slope.grain, slope.sharpness) == (75, 0.25, 0.25)
    assert (step.mean, step.contrast) == (100, 100)
    edge = math.sqrt((1 / 15) / (4 / 12))  # one column of 15 against four of 12
    assert (step.grain, step.sharpness) == pytest.approx((edge, edge))


@pytest.mark.parametrize("image", [SLOPE.astype(np.uint16), np.repeat(SLOPE[:, :, None], 3, axis=2)])
def test_sixteen_bit_and_colour_have_the_same_figures(image):
    assert figures(image, image + image.dtype.type(3)) == pytest.approx(figures(SLOPE, SLOPE + np.uint8(3)))


def test_stripes_of_single_pixels_are_all_grain():
    assert figures(np.tile(np.uint8([0, 100]), (16, 8))).grain == math.inf


def test_white_noise():
    noise = figures(noise_like(20), noise_like(20))
    assert noise.grain == pytest.approx(1, abs=0.03)
    assert 0.8 < noise.noise <= 1
    assert noise.change == pytest.approx(20 * 2 / math.sqrt(math.pi), rel=0.05)


def test_noise_is_measured_where_nothing_moves():
    first = np.tile(np.uint8([60, 160]).repeat(32), (60, 1))
    moved = first.copy()
    moved[:, 20:40] = 255 - moved[:, 20:40]
    assert figures(first, moved).noise == 0
    grainy = figures(*(np.clip(first + RNG.normal(0, 10, first.shape), 0, 255).astype(np.uint8) for _ in range(2)))
    assert grainy.noise == pytest.approx(10**2 / (50**2 + 10**2), rel=0.2)


def test_share_of_saturated_pixels():
    image = np.full((16, 16), 249, np.uint8)
    image[:4] = 250
    assert figures(image).saturated == 0.25


def test_pixels_without_a_measurement_do_not_count():
    image = np.full((16, 16), 1000, np.uint16)
    image[:, :4] = 0
    image[:, 8:12] = 3000
    seen = figures(image, ignore=0)
    assert (seen.mean, seen.measured) == (pytest.approx(5000 / 3), 0.75)
    assert figures(np.zeros_like(image), ignore=0)[:4] == (0, 0, 0, 0)


def test_change():
    assert figures(SLOPE, SLOPE).change == 0
    assert figures(SLOPE, SLOPE + np.uint8(3)).change == 3


def test_a_large_picture_is_sampled_by_rows_and_one_row_is_enough():
    large = np.tile(np.arange(341, dtype=np.uint16) * 10, (256, 1))
    assert figures(large).grain == 0.25
    assert figures(np.tile(np.arange(9000, dtype=np.uint16), (8, 1))).grain == 0.25


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({}, LabelState.OK, Reason.NONE),
        ({"mean": 19.9}, LabelState.DEGRADED, Reason.DARK),
        ({"mean": 19.9, "contrast": 4.9}, LabelState.UNKNOWN, Reason.DARK),
        ({"measured": 0.49}, LabelState.UNKNOWN, Reason.DARK),
        ({"contrast": 4.9}, LabelState.UNKNOWN, Reason.FLAT),
        ({"saturated": 0.21}, LabelState.DEGRADED, Reason.SATURATED),
        ({"saturated": 0.51}, LabelState.UNKNOWN, Reason.SATURATED),
        ({"saturated": 0.21, "contrast": 4.9}, LabelState.UNKNOWN, Reason.SATURATED),
        ({"grain": 0.91}, LabelState.UNKNOWN, Reason.NOISE),
        ({"noise": 0.26}, LabelState.DEGRADED, Reason.NOISE),
        ({"noise": 0.51}, LabelState.UNKNOWN, Reason.NOISE),
        ({"sharpness": 0.29}, LabelState.DEGRADED, Reason.BLURRED),
        ({"saturated": 0.21, "noise": 0.51}, LabelState.UNKNOWN, Reason.NOISE),  # the worse
    ],
)
def test_what_one_picture_allows(changes, state, reason):
    finding = BOUNDS.judge(GOOD._replace(**changes))
    assert (finding.state, finding.cause.reason) == (state, reason)
    assert bool(finding.cause.detail) == bool(reason)


def healthy(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 3, STEP.shape)
    return np.clip(STEP + 30 + noise, 0, 255).astype(np.uint8)


DARK = np.zeros((16, 16), np.uint8)


def seen(health: PictureHealth, images: dict[int, np.ndarray]) -> dict[int, Reason]:
    """Reasons by the moment in ms."""
    reasons = {}
    for ms, image in images.items():
        health.see(image, ms * MS)
        reasons[ms] = health.finding.cause.reason
    return reasons


def test_two_of_three_looks_decide_and_the_window_remembers():
    health = PictureHealth(BOUNDS, hold_ns=500 * MS)
    images = {ms: healthy(ms) for ms in range(0, 2000, 100)}
    images[200] = DARK
    assert set(seen(health, images).values()) == {Reason.NONE}
    images = {2000 + ms: image for ms, image in images.items()} | {2300: DARK}
    reasons = seen(health, images)
    assert [ms for ms, reason in reasons.items() if reason is Reason.DARK] == list(range(2300, 2801, 100))


def test_a_cut_is_not_noise():
    images = {ms: healthy(ms) if ms < 1000 else healthy(ms)[::-1, ::-1] for ms in range(0, 2000, 100)}
    meter = PictureMeter(STEP, 250, None)
    measured = [meter.measure(images[ms]).noise for ms in (900, 1000, 1100)]
    assert measured[1] > 2 * BOUNDS.noise
    assert set(seen(PictureHealth(BOUNDS, hold_ns=0), images).values()) == {Reason.NONE}


def test_the_worse_of_two_findings_stands():
    health = PictureHealth(BOUNDS, hold_ns=1000 * MS)
    dim = healthy(0) // 8
    assert BOUNDS.judge(figures(dim)).state is LabelState.DEGRADED
    seen(health, {0: DARK, 100: DARK, 200: dim})
    assert health.finding.state is LabelState.UNKNOWN
    seen(health, {ms: dim + np.uint8(ms % 200 // 100) for ms in range(300, 1300, 100)})
    assert (health.finding.state, health.finding.cause.reason) == (LabelState.DEGRADED, Reason.DARK)


def test_a_look_costs_nothing_between_looks(monkeypatch):
    looks = []
    measure = PictureMeter.measure
    monkeypatch.setattr(PictureMeter, "measure", lambda self, image: looks.append(1) or measure(self, image))
    health = PictureHealth(BOUNDS, hold_ns=0)
    for k in range(30):
        health.see(healthy(k), k * 33_333_333)
    assert len(looks) == 10


def test_static_after_a_second_without_a_change():
    still = {ms: healthy(0) for ms in range(0, 3000, 100)}
    reasons = seen(PictureHealth(BOUNDS, hold_ns=0), still)
    assert next(ms for ms, reason in reasons.items() if reason is Reason.STATIC) == 1100  # two looks that say so
    restless = BOUNDS.model_copy(update={"moves": False})
    assert set(seen(PictureHealth(restless, hold_ns=0), still).values()) == {Reason.NONE}


def test_one_change_is_enough_not_to_be_static():
    images = {ms: healthy(0) for ms in range(0, 3000, 100)}
    for ms in range(0, 3000, 900):
        images[ms] = healthy(ms + 1)
    assert set(seen(PictureHealth(BOUNDS, hold_ns=0), images).values()) == {Reason.NONE}


def test_reset_and_another_size():
    health = PictureHealth(BOUNDS, hold_ns=1000 * MS)
    seen(health, {0: DARK, 100: DARK})
    assert health.finding.cause.reason is Reason.DARK
    health.reset()
    assert health.finding.cause.reason is Reason.NONE
    health.see(np.tile(healthy(0), (2, 2)), 50 * MS)  # any stamp, any size
    assert health.finding.cause.reason is Reason.NONE


def reference(**changes):
    values = {
        "means": np.float32([[0, 0], [4, 0]]), "deviation": np.float32([1, 1]), "directions": np.float32([[0, 1]]),
        "variances": np.float32([4]), "rest": 1.0,
    }  # fmt: skip
    return FeatureReference.of(**(values | changes)).model_copy(update={"threshold": 2.0})


PAST, FEATURE = np.float32([[0, 1]]), np.float32([0, 3])  # their mean is (0, 2)


def test_distance_from_the_nearest_class():
    plain = reference(directions=np.zeros((0, 2), np.float32), variances=np.zeros(0, np.float32))
    assert Familiarity(plain).score(PAST, FEATURE) == pytest.approx(math.sqrt(2**2 / 2) / 2)
    assert Familiarity(plain).score(PAST + np.float32([4, -2]), FEATURE + np.float32([4, -2])) == pytest.approx(0)
    coarse = reference(
        directions=np.zeros((0, 2), np.float32), variances=np.zeros(0, np.float32), deviation=np.float32([1, 4])
    )
    assert Familiarity(coarse).score(PAST, FEATURE) == pytest.approx(math.sqrt(0.5**2 / 2) / 2)


def test_a_direction_in_which_a_class_differs_much_counts_little():
    assert Familiarity(reference()).score(PAST, FEATURE) == pytest.approx(math.sqrt(2**2 / 4 / 2) / 2)


def test_score_is_the_mahalanobis_distance():
    rng = np.random.default_rng(3)
    directions = np.linalg.qr(rng.normal(size=(32, 32)))[0][:4].astype(np.float16).astype(np.float32)
    means, deviation = rng.normal(size=(5, 32)).astype(np.float16), rng.uniform(0.5, 2, 32).astype(np.float16)
    variances, rest = np.float32([1.5, 3, 8, 20]), 0.25
    scored = Familiarity(FeatureReference.of(means, deviation, directions, variances, rest))
    past, feature = rng.normal(size=(7, 32)).astype(np.float32), rng.normal(size=32).astype(np.float32)
    away = ((past.sum(0) + feature) / 8 - means.astype(np.float64)) / deviation
    inverse = np.eye(32) / rest - directions.T @ np.diag(1 / rest - 1 / variances) @ directions
    expected = math.sqrt(np.einsum("kd,de,ke->k", away, inverse, away).min() / 32)
    assert scored.score(past, feature) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"means": "AAAA"},  # too short
        {"size": 1 << 20, "classes": 10_000},  # nothing is allocated for what is not there
        {"deviation": "????????"},
        {"deviation": "AAAAAA=="},  # zeros
        {"directions": "AH4AfA=="},  # NaN, infinity
        {"variances": (1.0, 2.0)},
        {"rest": 0.0},
        {"threshold": float("inf")},
    ],
)
def test_a_reference_that_makes_no_sense_is_refused(changes):
    with pytest.raises(ValidationError):
        FeatureReference.model_validate(reference().model_dump() | changes)


def test_round_trip():
    for fitted in (reference(), BOUNDS):
        assert type(fitted).model_validate_json(fitted.model_dump_json(), strict=True) == fitted


@pytest.mark.parametrize("period_ms", [16, 33, 46])
def test_a_lamp_that_lights_every_other_picture_hides_nothing(period_ms):
    health = PictureHealth(BOUNDS, hold_ns=500 * MS)
    found = set()
    for k in range(120):
        health.see(DARK if k % 2 else healthy(k), k * period_ms * MS)
        found.add(health.finding.cause.reason)
    assert Reason.DARK in found
