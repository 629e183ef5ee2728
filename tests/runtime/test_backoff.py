"""Waits that double, and when they are short again."""

from __future__ import annotations

from kd_edge.runtime.backoff import Backoff

from .conftest import HandClock


def test_waits_double_and_are_short_again_only_after_it_worked_for_a_while():
    clock = HandClock()
    backoff = Backoff(clock, first_seconds=0.1, longest_seconds=5.0, settled_seconds=10.0)
    assert [backoff.next_seconds() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    backoff.came_back()
    clock.advance(9_999)
    assert backoff.next_seconds() == 5.0
    clock.advance(60_000)  # it was away for that long, and has not worked since
    assert backoff.next_seconds() == 5.0
    backoff.came_back()
    clock.advance(10_000)
    assert [backoff.next_seconds() for _ in range(2)] == [0.1, 0.2]
