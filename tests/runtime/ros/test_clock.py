"""ROS time as a stream's clock, against a clock that is told its time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kd_edge.runtime.ros import clock as module
from kd_edge.runtime.ros.clock import RosClock

SECOND = 1_000_000_000


class ToldClock:
    """rclpy's clock of a node with ``use_sim_time``, as far as it is used."""

    def __init__(self, ns: int = 0) -> None:
        self.ns = ns
        self.ros_time_is_active = True

    def now(self) -> SimpleNamespace:
        return SimpleNamespace(nanoseconds=self.ns)

    def get_clock(self) -> ToldClock:
        return self


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """This machine's clock, which is told its time, too."""
    told = SimpleNamespace(seconds=1000.0)

    def sleep(seconds: float) -> None:
        told.seconds += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: told.seconds, sleep=sleep))
    return told


def test_time_that_goes_on_is_ros_time() -> None:
    told = ToldClock(5 * SECOND)
    clock = RosClock(told)
    assert (clock.now_ns(), clock.wall_ns(), clock.offset_ns, clock.jumps) == (5 * SECOND, 5 * SECOND, 0, 0)
    told.ns = 7 * SECOND
    assert clock.now_ns() == 7 * SECOND
    told.ns = 700 * SECOND  # a bag that is wound forward
    assert (clock.now_ns(), clock.jumps) == (700 * SECOND, 0)
    assert clock.suspended_ns() == 0


def test_a_message_is_ahead_of_the_clock_that_tells_the_time_seldom() -> None:
    told = ToldClock(10 * SECOND)
    clock = RosClock(told)
    clock.see(10 * SECOND + 400_000_000)
    assert clock.now_ns() == 10 * SECOND + 400_000_000
    told.ns = 10 * SECOND + 250_000_000  # the clock goes on and has not caught up: no jump
    assert (clock.now_ns(), clock.jumps) == (10 * SECOND + 400_000_000, 0)
    told.ns = 10 * SECOND + 500_000_000
    assert clock.now_ns() == 10 * SECOND + 500_000_000
    clock.see(10 * SECOND + 100_000_000)  # an old one
    clock.see(90 * SECOND)  # of another clock
    assert (clock.now_ns(), clock.jumps) == (10 * SECOND + 500_000_000, 0)
    told.ns = 2 * SECOND
    clock.see(10 * SECOND + 510_000_000)  # of before the jump
    assert (clock.now_ns(), clock.jumps, clock.offset_ns) == (11 * SECOND + 500_000_000, 1, 9 * SECOND + 500_000_000)


def test_before_the_first_clock_no_message_tells_the_time() -> None:
    clock = RosClock(ToldClock())
    clock.see(500_000_000)
    assert clock.now_ns() == 0


def test_a_loop_goes_on_a_second_later_and_stamps_with_it() -> None:
    told = ToldClock(10 * SECOND)
    clock = RosClock(told)
    told.ns = 70 * SECOND
    clock.now_ns()
    told.ns = 10 * SECOND
    assert clock.now_ns() == 71 * SECOND
    assert (clock.jumps, clock.offset_ns) == (1, 61 * SECOND)
    assert clock.describe_jump() == "ROS time went back by 1.0 min"
    told.ns = 11 * SECOND
    assert clock.now_ns() == 72 * SECOND
    told.ns = 69 * SECOND
    clock.now_ns()
    told.ns = 10 * SECOND  # the second loop: 69 + 61 = 130, then 131 at 10
    assert (clock.now_ns(), clock.jumps, clock.offset_ns) == (131 * SECOND, 2, 121 * SECOND)


def test_two_messages_that_overtook_each_other_are_no_jump() -> None:
    told = ToldClock(10 * SECOND)
    clock = RosClock(told)
    told.ns -= 50_000_000
    assert (clock.now_ns(), clock.jumps) == (10 * SECOND, 0)
    told.ns = 10 * SECOND + 1
    assert clock.now_ns() == 10 * SECOND + 1
    told.ns -= 50_000_001
    clock.now_ns()
    assert clock.jumps == 1


def test_no_time_yet_and_time_that_stands_still_are_told(machine: SimpleNamespace) -> None:
    told = ToldClock()
    clock = RosClock(told)
    assert not clock.is_ticking
    assert clock.trouble == "use_sim_time is set and nothing has come on /clock"
    told.ns = 3_250_000_000
    assert (clock.is_ticking, clock.trouble) == (True, "")
    machine.seconds += 0.4
    assert clock.is_ticking
    machine.seconds += 0.2
    assert not clock.is_ticking
    assert clock.trouble == "simulated time stands still at 3.250 s"
    told.ns += 1
    assert (clock.is_ticking, clock.jumps) == (True, 0)


def test_a_wait_ends_when_ros_time_has_passed_or_as_much_of_the_machines(machine: SimpleNamespace) -> None:
    told = ToldClock(SECOND)
    clock = RosClock(told)
    clock.sleep(0)
    assert machine.seconds == 1000.0
    clock.sleep(0.5)  # time stands still
    assert machine.seconds == pytest.approx(1000.5)

    def fast(seconds: float) -> None:  # ten times as fast
        machine.seconds += seconds
        told.ns += round(10 * seconds * SECOND)

    module.time.sleep = fast  # type: ignore[misc] - the machine's clock of the fixture
    clock.sleep(1.0)
    assert machine.seconds == pytest.approx(1000.6)


def test_whether_time_is_simulated_is_asked_of_ros() -> None:
    told = ToldClock(SECOND)
    clock = RosClock(told)
    assert clock.is_simulated
    told.ros_time_is_active = False
    assert not clock.is_simulated
    clock.close()
    clock.close()
