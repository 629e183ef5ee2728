"""Which rates a window needs, and the median of what there is."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer
from kd_edge.runtime.rate import NeededRate, RateMeter
from kd_edge.types import Reason

from .conftest import tiny_manifest

MS = 1_000_000


@pytest.mark.parametrize(
    ("segments", "seconds", "offsets", "least", "full"),
    [
        (4, 0.4, (0,), 10.0, 20.0),  # a frame within half, within a quarter of 100 ms
        (8, 2.0, (0, 70, 140), 4.0, 1000 / 70),
        (8, 2.0, (0, 200), 4.0, 8.0),  # the spacing asks for more than the offsets
        (8, 2.0, (0, 120, 240), 4.0, 1000 / 120),  # a thermal camera with 9 Hz will do
    ],
)
def test_needed_rates(segments, seconds, offsets, least, full):
    spec = Preprocess(resize_px=16, input_px=16, motion_offsets_ms=offsets)
    needed = NeededRate.of(tiny_manifest(segments=segments, clip_seconds=seconds, preprocess=spec))
    assert (needed.least_fps, needed.full_fps) == (pytest.approx(least), pytest.approx(full))


def test_the_rate_is_the_median_of_the_last_periods():
    meter = RateMeter()
    for stamp in (0, 100, 200):
        meter.see(stamp * MS)
    assert meter.fps is None
    for stamp in (300, 2300, 2400, 2500):  # one gap
        meter.see(stamp * MS)
    assert meter.fps == pytest.approx(10)
    meter.reset()
    meter.see(99_000 * MS)  # follows none
    assert meter.fps == pytest.approx(10)


def labels(make_model, noise, period_ms: float, offsets: tuple[int, ...], segments: int = 8, seconds: float = 2.0):
    """What half a minute of a steady camera gives."""
    spec = Preprocess(resize_px=16, input_px=16, motion_offsets_ms=offsets)
    recognizer = Recognizer.load(make_model(segments=segments, clip_seconds=seconds, preprocess=spec)[0])
    frames = noise(8)
    given = [recognizer.push(frames[k % 8], round(k * period_ms * MS)) for k in range(round(30_000 / period_ms))]
    return [p for p in given if p is not None]


def test_gaps_as_uneven_as_those_of_training_are_not_sparse(make_model, noise):
    """A thermal array with 9 pictures a second, now and then late: a quarter of a spacing is 62.5 ms."""
    stamps = np.cumsum([0, *([110, 110, 150, 70] * 30)]) * MS
    frames = noise(8)
    found = {}
    for known_ms in (0.0, 75.0):
        model, _ = make_model(segments=8, clip_seconds=2.0, segment_error_ms=known_ms)
        recognizer = Recognizer.load(model)
        given = [recognizer.push(frames[k % 8], int(stamp)) for k, stamp in enumerate(stamps)]
        found[known_ms] = {p.reason for p in given[30:]}
    assert Reason.SPARSE in found[0.0]
    assert found[75.0] == {Reason.NONE}


def test_a_camera_slower_than_the_window_needs_is_not_excused_by_uneven_training(make_model, noise):
    model, _ = make_model(segments=8, clip_seconds=2.0, segment_error_ms=120.0)
    recognizer = Recognizer.load(model)
    assert recognizer.needed_rate.full_fps == pytest.approx(8.0)
    frames = noise(8)
    given = [recognizer.push(frames[k % 8], round(k * MS * 1e3 / 6)) for k in range(100)]
    assert Reason.SLOW_RATE in {p.reason for p in given[30:]}
    assert Reason.SPARSE not in {p.reason for p in given[30:]}


@pytest.mark.parametrize(
    ("fps", "offsets", "state", "reason"),
    [
        (30, (0, 70, 140), "ok", Reason.NONE),
        (15, (0, 70, 140), "ok", Reason.NONE),
        (9, (0, 70, 140), "degraded", Reason.SLOW_RATE),
        (6.5, (0, 70, 140), "degraded", Reason.SLOW_RATE),  # never a label before
        (4.1, (0, 70, 140), "degraded", Reason.SLOW_RATE),
        (3.0, (0, 70, 140), "warming", Reason.SLOW_RATE),
        (9, (0, 120, 240), "ok", Reason.NONE),
        (9, (0,), "ok", Reason.NONE),
        (4.5, (0,), "degraded", Reason.SLOW_RATE),
        (3.0, (0,), "warming", Reason.SLOW_RATE),
    ],
)
def test_what_a_camera_of_some_rate_gives(make_model, noise, fps, offsets, state, reason):
    given = labels(make_model, noise, 1e3 / fps, offsets)
    later = given[len(given) // 3 :]
    assert later
    if state == "degraded":  # now and then a frame lies just where it is wanted
        assert {p.state.value for p in later} <= {"degraded", "ok"}
        later = [p for p in later if p.state.value == "degraded"]
        assert len(later) > 20
    assert {(p.state.value, p.reason) for p in later} == {(state, reason)}
    if reason:
        assert f"{fps:.1f} frames/s: the window needs at least 4.0 frames/s, " in later[-1].detail
