"""The measured budget of a machine that does not keep up."""

from __future__ import annotations

from kd_edge.runtime.overload import Load
from kd_edge.runtime.rate import NeededRate
from kd_edge.types import Cause, Reason

MS = 1_000_000
NEEDED = NeededRate(4.0, 14.3)


def seen(took_ms: float, every_ms: float, turns: int = 20, away_ms: float = 0) -> Load:
    """A loop that labels the newest frame again and again, and does something else in between."""
    load, now, captured = Load(), 0.0, 0
    for _ in range(turns):
        captured = max(captured + 1, int(now / every_ms) + 1)
        began = max(now, (captured - 1) * every_ms)
        now = began + took_ms
        load.see(round(began * MS), round(now * MS), captured, round(away_ms * MS))
        now += away_ms
    return load


def test_a_machine_that_keeps_up():
    load = seen(took_ms=10, every_ms=33)
    assert not load.is_over


def test_a_machine_that_takes_three_periods_a_frame():
    load = seen(took_ms=99, every_ms=33)
    assert load.is_over
    assert load.cause(NEEDED) == Cause(
        Reason.OVERLOAD,
        "a frame takes 99 ms and one comes every 33 ms: 67% are skipped; "
        "the window needs at least 4.0 frames/s, 14.3 for labels that are not degraded",
    )


def test_a_program_that_takes_longer_than_the_engine():
    load = seen(took_ms=20, away_ms=79, every_ms=33)
    assert load.is_over
    assert load.cause(NEEDED) == Cause(
        Reason.SLOW_PROGRAM,
        "the program takes 79 ms between two labels and a frame comes every 33 ms: 67% are skipped; "
        "the window needs at least 4.0 frames/s, 14.3 for labels that are not degraded",
    )
    assert seen(took_ms=60, away_ms=39, every_ms=33).cause(NEEDED).reason is Reason.OVERLOAD


def test_too_few_frames_tell_nothing():
    assert not seen(took_ms=99, every_ms=33, turns=9).is_over
