"""The one clock rule: what each kind of stamp becomes, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kd_edge.runtime.clock import COARSER, MAX_AHEAD_MS, MonotonicClock, StampMapper, ahead_of, duration, stamp_of
from kd_edge.types import Cause, Reason

from .conftest import HandClock

MS = 1_000_000
S = 1000 * MS
AHEAD = round(MAX_AHEAD_MS) * MS


def reason(moment: int | Cause) -> str | int:
    return moment.reason.value if isinstance(moment, Cause) else moment


@pytest.mark.parametrize(
    ("value", "stamp"),
    [
        (5, 5), (np.int64(7), 7), (np.uint64(9), 9), (1e9, 10**9), (-3, -3), (np.float32(2.0), 2),
        ((1 << 62) - 1, (1 << 62) - 1),
        (None, "clock_invalid"), (math.nan, "clock_invalid"), (math.inf, "clock_invalid"), (-math.inf, "clock_invalid"),
        (1 << 62, "clock_invalid"), (1 << 63, "clock_invalid"), (10**400, "clock_invalid"), (1e300, "clock_invalid"),
        ("12", "clock_invalid"), ([1], "clock_invalid"), (np.array([1, 2]), "clock_invalid"), (1j, "clock_invalid"),
        (True, "clock_invalid"), (np.False_, "clock_invalid"), (12.5, "clock_invalid"), (b"12", "clock_invalid"),
    ],
)  # fmt: skip
def test_a_stamp_is_whole_nanoseconds_or_none(value, stamp):
    assert reason(stamp_of(value)) == stamp


def test_a_moment_may_lie_a_little_ahead():
    assert ahead_of(1000 * MS, 1050 * MS, AHEAD) is None
    ahead = ahead_of(1000 * MS, 1000 * MS + AHEAD + 3600 * S, AHEAD)
    assert ahead == Cause(Reason.CLOCK_AHEAD, "a frame's stamp lies 1.0 hours ahead of now")


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ms"), (999 * MS, "999 ms"), (S, "1.0 s"), (90 * S, "1.5 min"),
     (57 * 31_557_600 * S, "57.0 years"), (-2 * S, "-2.0 s")],
)  # fmt: skip
def test_durations_are_for_people(ns, text):
    assert duration(ns) == text


def test_our_own_clock():
    clock = MonotonicClock()
    before = clock.now_ns()
    assert 0 <= clock.now_ns() - before < 3600 * S
    assert clock.wall_ns() > 1_600_000_000 * S
    assert clock.suspended_ns() > -S


class Mapped:
    """A camera's stamps against a clock moved by hand."""

    def __init__(self, kind):
        self.clock = HandClock()
        self.mapper = StampMapper(kind, AHEAD, self.clock)

    def at(self, ms: float, stamp_ns: object) -> int | str:
        """Read a frame ``ms`` after the start of the clock; its moment in ms after the start, or the reason."""
        self.clock.ns = 5 * S + round(ms * MS)
        moment = self.mapper.moment(stamp_ns, self.clock.ns)
        return moment.reason.value if isinstance(moment, Cause) else (moment - 5 * S) / MS


def test_monotonic_stamps_are_taken_as_they_are():
    camera = Mapped("monotonic")
    assert camera.at(40, 5 * S + 30 * MS) == 30
    assert camera.at(50, 5 * S + 90 * MS) == 50  # within the bound, but no frame is captured after it was read
    assert camera.at(60, 5 * S + 111 * MS) == "clock_ahead"
    assert camera.at(5100, 5 * S + 5090 * MS) == 5090  # nothing is left of it


def test_wall_clock_stamps_declared_monotonic_are_refused_for_ever_and_say_what_to_do():
    camera = Mapped("monotonic")
    for ms in range(0, 3000, 33):
        assert camera.at(ms, 1_795_000_000 * S + ms * MS) == "clock_ahead"
    moment = camera.mapper.moment(1_795_000_000 * S, camera.clock.ns)
    assert "56.9 years ahead of now: not the clock 'monotonic'; set clock = 'device'" in moment.detail


def test_stamps_of_a_clock_that_began_later_are_refused():
    camera = Mapped("monotonic")
    camera.clock.ns = 100 * S
    moment = camera.mapper.moment(3 * S, 100 * S)
    assert (moment.reason, moment.detail[:42]) == (Reason.CLOCK_BEHIND, "a frame's stamp lies 1.6 min behind now: n")
    assert reason(camera.mapper.moment(0, 100 * S)) == "clock_behind"  # a driver without stamps


def test_one_stray_stamp_costs_one_frame():
    camera = Mapped("monotonic")
    assert [camera.at(ms, 5 * S + stamp * MS) for ms, stamp in ((10, 0), (43, 3_600_000), (76, 66), (109, 99))] == [
        0, "clock_ahead", 66, 99,
    ]  # fmt: skip


def test_a_clock_that_steps_back_is_followed_after_one_frame():
    camera = Mapped("monotonic")
    moments = [camera.at(ms, 5 * S + (ms - 2000 * (ms >= 3099)) * MS) for ms in range(3000, 3200, 33)]
    assert moments == [3000, 3033, 3066, "clock_jump", 1132, 1165, 1198]


@pytest.mark.parametrize("step_ms", [-900, -300, -100])
def test_a_clock_that_steps_back_by_less_than_a_window_is_no_frame_overtaken(step_ms):
    """Its stamps would be older than the last one for a while, then go on as if nothing had been."""
    camera = Mapped("monotonic")
    moments = [camera.at(ms, 5 * S + (ms + step_ms * (ms >= 3099)) * MS) for ms in range(3000, 3200, 33)]
    assert moments == [3000, 3033, 3066, "clock_jump", *(ms + step_ms for ms in (3132, 3165, 3198))]


def test_frames_that_overtake_each_other_a_little_are_told_by_their_stamps():
    camera = Mapped("monotonic")
    assert [camera.at(ms, 5 * S + stamp * MS) for ms, stamp in ((40, 30), (41, 20), (73, 63), (74, 20))] == [
        30, 20, 63, 20,
    ]  # fmt: skip


def test_wall_stamps_follow_the_time_of_day_though_it_steps():
    camera = Mapped("wall")
    wall = lambda ms: camera.clock.wall_ahead_ns + 5 * S + ms * MS  # noqa: E731
    assert camera.at(40, wall(30)) == 30
    late = wall(63)  # stamped before the step
    camera.clock.wall_ahead_ns += 3600 * S
    assert camera.at(73, late) == "clock_jump"
    assert camera.at(106, wall(96)) == 96
    late = wall(129)
    camera.clock.wall_ahead_ns -= 3600 * S
    assert camera.at(139, late) == "clock_jump"
    assert camera.at(172, wall(162)) == 162


@pytest.mark.parametrize("step_ms", [-500, -60, 60, 300, 500])
def test_a_frame_under_way_while_the_time_of_day_steps_bears_neither_time(step_ms):
    """After a gap its stamp would fit, a few hundred ms off."""
    camera = Mapped("wall")
    wall = lambda ms: camera.clock.wall_ahead_ns + 5 * S + ms * MS  # noqa: E731
    assert camera.at(40, wall(30)) == 30
    late = wall(600)
    camera.clock.wall_ahead_ns += step_ms * MS
    assert camera.at(610, late) == "clock_jump"
    assert camera.at(643, wall(633)) == 633
    camera.clock.wall_ahead_ns += 40 * MS  # within what a stamp may be off
    assert camera.at(676, wall(666)) == 666


def test_a_camera_without_stamps_is_dated_by_its_arrival():
    camera = Mapped("arrival")
    assert [camera.at(ms, stamp) for ms, stamp in ((40, None), (73, math.nan), (106, 0))] == [40, 73, 106]


def jitter(count: int, seed: int = 0) -> np.ndarray:
    """Milliseconds on the way from the device: 4 at least, seldom many."""
    return 4 + np.random.default_rng(seed).exponential(3, count)


@pytest.mark.parametrize("ppm", [-200, -20, 0, 20, 200])
def test_a_device_clock_is_learned_with_its_drift(ppm):
    camera = Mapped("device")
    delays = jitter(3000)
    errors = []
    for k in range(3000):
        true_ms = k * 33.0
        stamp_ns = 777 * S + round(true_ms * (1 + ppm * 1e-6) * MS)
        found = camera.at(true_ms + delays[k], stamp_ns)
        errors.append(found - true_ms)
    settled = np.array(errors[300:])
    assert settled.min() > 3.5  # the shortest way is not known: it counts as no time at all
    assert settled.max() < 6.5
    assert np.all(np.array(errors) <= delays + 1e-6)  # never after its arrival


def test_a_device_clock_that_wraps_costs_one_frame():
    camera = Mapped("device")
    stamps_us = (2**32 - 100_000 + np.arange(0, 400_000, 33_000)) % 2**32
    found = [camera.at(33 * k + 5, int(us) * 1000) for k, us in enumerate(stamps_us)]
    assert found.count("clock_jump") == 1
    assert found[4] == "clock_jump"
    assert [round(f) for f in found[5:]] == [33 * k + 5 for k in range(5, len(found))]


@pytest.mark.parametrize("step_ms", [3_600_000, 500, -500, -3_600_000])
def test_a_device_clock_that_steps_costs_one_frame(step_ms):
    camera = Mapped("device")
    found = [camera.at(33 * k + 5, 50 * S + (33 * k + step_ms * (k >= 20)) * MS + 9000 * S) for k in range(40)]
    assert [k for k, f in enumerate(found) if f == "clock_jump"] == [20]
    assert [f for f in found if f != "clock_jump"] == [33 * k + 5 for k in range(40) if k != 20]


def test_a_burst_after_a_stall_keeps_its_own_moments():
    camera = Mapped("device")
    for k in range(60):
        camera.at(33 * k + 5, 70 * S + 33 * k * MS)
    burst = [camera.at(4000 + k, 70 * S + 33 * (60 + k) * MS) for k in range(10)]  # delivered two seconds late
    assert burst == [33 * (60 + k) + 5 for k in range(10)]


def test_a_device_clock_learned_from_a_burst_is_learned_again():
    """The first frames after a start lay in buffers for up to 600 ms, each 20 ms less than the one before."""
    camera = Mapped("device")
    found = [camera.at(600 + 0.2 * k, 70 * S + 20 * k * MS) for k in range(30)]
    found += [camera.at(20 * k + 5, 70 * S + 20 * k * MS) for k in range(31, 60)]
    jumps = [k for k, moment in enumerate(found) if moment == "clock_jump"]
    assert jumps == list(range(3, 31, 3))
    assert found[31:] == [20 * k + 5 for k in range(32, 60)]


def test_a_reopened_device_may_begin_anywhere():
    camera = Mapped("device")
    assert camera.at(5, 70 * S) == 5
    camera.mapper.reopened()
    assert camera.at(38, 0) == "clock_jump"
    assert camera.at(71, 33 * MS) == 71
    assert camera.at(104, math.nan) == "clock_invalid"


@pytest.mark.parametrize("late_ms", [300, 2000, 20_000])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_device_that_is_late_for_good_stays_late(late_ms, reopened):
    """A queue that never empties: what waited in it does not become fresh by lasting."""
    camera = Mapped("device")
    for k in range(100):
        camera.at(33 * k + 5, 70 * S + 33 * k * MS)
    if reopened:
        camera.mapper.reopened()
    for k in range(100, 3100):
        moment = camera.at(33 * k + 5 + late_ms, 70 * S + 33 * k * MS)
        assert abs(moment - (33 * k + 5)) < 60, k  # 100 s at 500 ppm


def test_a_queue_that_grows_is_no_drift():
    camera = Mapped("device")
    for k in range(3000):
        true_ms = 33 * k
        moment = camera.at(true_ms + 5 + 0.05 * true_ms, 70 * S + true_ms * MS)  # 50 ms later each second
    assert moment - (true_ms + 5) < 60


def test_a_reading_that_was_interrupted_is_no_sleep(monkeypatch):
    """Between two readings of the clocks another thread runs for a second, three times in turn."""
    held = {"ns": 0, "left": 3}

    def boot(kind):
        if held["left"]:
            held["left"] -= 1
            held["ns"] += S
        return 900 * S + held["ns"] + 7 * S

    monkeypatch.setattr("kd_edge.runtime.clock.time.monotonic_ns", lambda: 900 * S + held["ns"])
    monkeypatch.setattr("kd_edge.runtime.clock.time.clock_gettime_ns", boot)
    assert MonotonicClock().suspended_ns() == 7 * S


@pytest.mark.parametrize(("unit", "each_ns"), COARSER.items())
@pytest.mark.parametrize("kind", ["monotonic", "wall"])
def test_a_stamp_in_another_unit_is_asked_about_at_once(kind, unit, each_ns):
    camera = Mapped(kind)
    camera.clock.ns = 3600 * S
    now_ns = camera.clock.wall_ns() if kind == "wall" else camera.clock.ns
    moment = camera.mapper.moment(round((now_ns - 20 * MS) / each_ns), camera.clock.ns)
    assert moment.reason is Reason.CLOCK_BEHIND
    assert moment.detail.endswith(f"behind now (is it in {unit}?)")  # and no other clock is advised


@pytest.mark.parametrize(("unit", "each_ns"), [*COARSER.items(), ("", 1)])
def test_a_device_that_does_not_count_nanoseconds_is_told_after_a_second(unit, each_ns):
    camera = Mapped("device")
    moments = [camera.mapper.moment(round((77 * S + k * 33 * MS) / each_ns), k * 33 * MS) for k in range(400)]
    if not unit:
        assert not any(isinstance(moment, Cause) for moment in moments)
        return
    assert {m.reason for m in moments[-10:]} == {Reason.CLOCK_INVALID}
    assert f"run as if in {unit}: nanoseconds are {each_ns:,.0f} times that" in moments[-1].detail
    assert not any(isinstance(moment, Cause) for moment in moments[:30])
