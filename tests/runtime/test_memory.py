"""Ring and motion history against a naive list."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_edge.runtime.memory import FEATURES_PER_SPACING, GAP, FeatureRing, MotionHistory, StampedRing
from kd_edge.sampling import gather
from kd_edge.types import Cause, Reason

MS = 1_000_000
RECONNECT = Cause(Reason.RECONNECT, "reconnect")


def test_stamped_ring_keeps_the_newest_rows_in_order():
    ring = StampedRing(span_ns=40, separation_ns=10)
    assert ring.capacity == 7
    places = [ring.append(k * 10) for k in range(10)]
    assert places == [k % 7 for k in range(10)]
    assert list(ring.stamps_ns) == [30, 40, 50, 60, 70, 80, 90]
    assert ring.places([30, 44, 45, 46, 90]) == ([places[k] for k in (3, 4, 4, 5, 9)], 5)
    assert ring.places([0]) == ([places[3]], 30)
    ring.clear()
    assert list(ring.stamps_ns) == []


def test_stamped_ring_thins_rows_that_come_too_fast():
    ring = StampedRing(span_ns=40, separation_ns=10)
    places = {stamp: ring.append(stamp) for stamp in (0, 4, 8, 12, 16, 20, 24)}
    # 4 and 8 were replaced: they followed 0 too soon; 12 is 12 after 0 and stays; 24 is 12 after 12
    assert list(ring.stamps_ns) == [0, 12, 24]
    assert ring.places([0, 12, 24]) == ([places[0], places[12], places[24]], 0)
    assert len({places[0], places[12], places[24]}) == 3


def test_stamped_ring_of_no_span_holds_the_newest_row_alone():
    ring = StampedRing(span_ns=0, separation_ns=1)
    assert [ring.append(stamp) for stamp in (0, 1, 50)] == [0, 0, 0]
    assert (ring.capacity, list(ring.stamps_ns)) == (1, [50])


class NaiveHistory:
    """Everything ever pushed, thinned by the same rule."""

    def __init__(self, separation_ns: int) -> None:
        self.separation_ns = separation_ns
        self.stamps: list[int] = []
        self.values: list[float] = []

    def append(self, stamp: int, value: float) -> None:
        if len(self.stamps) >= 2 and self.stamps[-1] - self.stamps[-2] < self.separation_ns:
            self.stamps.pop()
            self.values.pop()
        self.stamps.append(stamp)
        self.values.append(value)


@settings(max_examples=150, deadline=None)
@given(
    segments=st.integers(2, 9),
    spacing=st.integers(64, 400),
    steps=st.lists(st.integers(1, 300), min_size=1, max_size=250),
    factor=st.sampled_from([1, 2, 20]),
)
def test_feature_ring_equals_a_list_of_everything(segments, spacing, steps, factor):
    ring = FeatureRing(segments, spacing, feature_size=1)
    naive = NaiveHistory(max(1, spacing // FEATURES_PER_SPACING))
    now = 0
    out = np.zeros((segments - 1, 1), dtype=np.float32)
    for k, step in enumerate(steps):
        now += max(1, step // factor)
        wanted = None
        if naive.stamps:
            stamps = np.array(naive.stamps, dtype=np.int64)
            wanted = gather(stamps, now - spacing, segments - 1, spacing)
        error = ring.gather(now, out)
        assert (error is None) == (wanted is None)
        if wanted is not None:
            assert out[:, 0].tolist() == [naive.values[i] for i in wanted]
            moments = [now - s * spacing for s in range(segments - 1, 0, -1)]
            assert error == max(abs(naive.stamps[i] - m) for i, m in zip(wanted, moments, strict=True))
        ring.append(now, np.float32([k]))
        naive.append(now, float(k))


def test_feature_ring_memory_does_not_depend_on_the_frame_rate():
    ring = FeatureRing(8, 300 * MS, feature_size=4)
    capacity = ring._ring.capacity
    assert capacity < 8 * FEATURES_PER_SPACING + 40
    out = np.zeros((7, 4), dtype=np.float32)
    for k in range(20_000):  # 5000 frames a second
        ring.append(k * MS // 5, np.full(4, k * 0.2, dtype=np.float32))
    now = 20_000 * MS // 5
    error = ring.gather(now, out)
    assert error is not None
    assert error <= 300 * MS / FEATURES_PER_SPACING
    np.testing.assert_allclose(out[:, 0], [4000 - 300 * k for k in range(7, 0, -1)], atol=300 / FEATURES_PER_SPACING)


def test_window_of_one_segment_needs_no_past():
    ring = FeatureRing(1, 100, feature_size=2)
    assert ring.gather(0, np.zeros((0, 2), dtype=np.float32)) == 0


def rows(count: int) -> list[np.ndarray]:
    return list(np.zeros((count, 2, 2), dtype=np.float32))


def push(history: MotionHistory, stamp_ms: float) -> tuple[list[float], int] | None:
    history.append(round(stamp_ms * MS))[:] = stamp_ms
    stack = history.stack()
    if stack is None:
        return None
    assert stack.stamp_ns == round(stamp_ms * MS)
    return [round(float(p[0, 0])) for p in stack.planes], stack.late_ns // MS


def test_motion_history_takes_the_planes_nearest_to_their_moments():
    history = MotionHistory((0, 70, 140), rows, longest_gap_ns=150 * MS)
    results = [push(history, k * 100 / 3) for k in range(8)]
    assert results[:4] == [None] * 4  # 0 .. 100 ms: 140 ms are not there yet (within 35 ms)
    # at 133 ms: 63 -> 67, -7 -> 0;  at 167 ms: 97 -> 100, 27 -> 33
    assert results[4] == ([133, 67, 0], 0)
    assert results[5] == ([167, 100, 33], 0)


def test_motion_history_says_how_late_a_plane_is():
    history = MotionHistory((0, 70), rows, longest_gap_ns=150 * MS)
    assert push(history, 0) is None
    assert push(history, 120) == ([120, 0], 15)  # 50 ms from its moment, half a step of 70 ms is tolerated
    assert push(history, 155) == ([155, 120], 0)


def test_motion_history_starts_anew_after_a_gap():
    history = MotionHistory((0, 70, 140), rows, longest_gap_ns=150 * MS)
    for k in range(10):
        push(history, k * 35)
    assert push(history, 350) == ([350, 280, 210], 0)
    assert push(history, 501) is None
    assert push(history, 571) is None
    assert push(history, 641) == ([641, 571, 501], 0)


def test_motion_history_is_bounded_at_any_frame_rate():
    history = MotionHistory((0, 70, 140), rows, longest_gap_ns=150 * MS)
    assert history._ring.capacity < 24
    for k in range(5000):
        result = push(history, float(k))
    assert result is not None
    planes, late_ms = result
    assert (planes[0], late_ms) == (4999, 0)
    assert np.abs(np.subtract(planes[1:], (4929, 4859))).max() <= 11  # thinned to a plane every 11 ms


def test_a_stack_of_the_frame_alone_is_never_too_short():
    history = MotionHistory((0,), rows, longest_gap_ns=150 * MS)
    assert [push(history, stamp) for stamp in (0, 30, 5000)] == [([0], 0), ([30], 0), ([5000], 0)]


def test_a_window_of_one_segment_is_always_full():
    ring = FeatureRing(segments=1, spacing_ns=100, feature_size=1)
    ring.clear(RECONNECT)
    assert ring.gather(0, np.zeros((0, 1), np.float32)) == 0
    assert ring.cause is GAP


def test_the_window_says_why_it_is_not_full():
    ring = FeatureRing(segments=2, spacing_ns=100, feature_size=1)
    feature, out = np.zeros(1, np.float32), np.zeros((1, 1), np.float32)
    causes = [ring.cause.detail]
    for stamp, cut in ((0, None), (100, None), (400, None), (450, RECONNECT), (500, None), (600, None)):
        if cut is not None:
            ring.clear(cut)
        full = ring.gather(stamp, out) is not None
        ring.append(stamp, feature)
        causes.append(f"{full} {ring.cause.detail}")
    assert causes == ["start", "False start", "True gap", "False gap", "False reconnect", "True gap", "True gap"]
