"""The mean over the phases between two segments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kd_edge.errors import ConfigError
from kd_edge.metrics import softmax_row
from kd_edge.runtime import Recognizer
from kd_edge.runtime.memory import FEATURES_PER_SPACING
from kd_edge.runtime.phases import PhaseMean, span_of
from kd_edge.types import LabelState

from .conftest import tiny_manifest

MS = 1_000_000
MANIFEST = tiny_manifest()  # four segments, 100 ms apart


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_the_frames_of_one_spacing_count_alike() -> None:
    """At 30 ms a frame: those 0, 30, 60 and 90 ms old, not the one that is 120 ms old."""
    phases = PhaseMean(MANIFEST, 100 * MS)
    rows = [[1.0, 0.0, 4.0], [0.0, 2.0, 8.0], [5.0, 2.0, 0.0], [2.0, 0.0, 0.0], [1.0, 0.0, 4.0]]
    answers = [phases.add(k * 30 * MS, np.float32(row)) for k, row in enumerate(rows)]
    assert answers == [rows[0], [0.5, 1.0, 6.0], [2.0, 4 / 3, 4.0], [2.0, 1.0, 3.0], [2.0, 1.0, 3.0]]


def test_a_window_exactly_one_spacing_old_has_the_same_phase_and_counts_no_more() -> None:
    phases = PhaseMean(MANIFEST, 100 * MS)
    phases.add(0, np.float32([9, 9, 9]))
    assert phases.add(100 * MS, np.float32([1, 2, 3])) == [1.0, 2.0, 3.0]


def test_it_is_the_softmax_of_the_mean_log_probability() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 5, (3, 3)).astype(np.float32).tolist()
    phases = PhaseMean(MANIFEST, 100 * MS)
    for k, row in enumerate(rows):
        answer = phases.add(k * 33 * MS, np.float32(row))
    logs = mean([[math.log(p) for p in softmax_row(row, 1.7)] for row in rows])
    total = sum(math.exp(value) for value in logs)
    expected = [math.exp(value) / total for value in logs]
    np.testing.assert_allclose(softmax_row(answer, 1.7), expected, rtol=1e-6)


def test_memory_is_fixed_at_any_rate() -> None:
    """At 10,000 frames a second rows are thinned to 32 a spacing, the newest one always counts."""
    phases = PhaseMean(MANIFEST, 100 * MS)
    for k in range(5000):
        answer = phases.add(k * MS // 10, np.float32([k, 0, 0]))
    assert len(phases._logits) <= FEATURES_PER_SPACING + 3
    assert answer[0] == pytest.approx(4999 - 500, abs=20 + 500)
    assert 4999 - 520 < answer[0] < 4999 - 480


def test_alone_is_what_was_given() -> None:
    phases = PhaseMean(MANIFEST, 0)
    assert phases.add(0, np.float32([1, 2, 3])) == [1.0, 2.0, 3.0]
    assert phases.add(1, np.float32([3, 2, 1])) == [3.0, 2.0, 1.0]


def test_the_span_is_one_spacing_and_none_with_states() -> None:
    from .test_recurrence import STATES

    assert span_of(MANIFEST, None) == 100 * MS
    assert span_of(MANIFEST, 12.5) == 12_500_000
    assert span_of(tiny_manifest(states=STATES), None) == 0


@pytest.mark.parametrize("wrong", [-1, 401, math.nan, True, "100"])
def test_a_span_that_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"smooth_ms .*0 to 400 milliseconds, the window of"):
        span_of(MANIFEST, wrong)  # type: ignore[arg-type]


def logits_of(prediction) -> np.ndarray:
    logs = np.log(prediction.probabilities.astype(np.float64))
    return logs - logs.mean()


def test_a_label_is_that_of_the_phases_and_a_gap_starts_anew(make_model, noise) -> None:
    path, _ = make_model()
    frames = noise(40)
    with Recognizer.load(path, smooth_ms=0) as alone, Recognizer.load(path) as combined:
        seen: list[np.ndarray] = []
        for k, frame in enumerate(frames):
            stamp = (k * 25 + (0 if k < 25 else 200)) * MS
            single, answer = alone.push(frame, stamp), combined.push(frame, stamp)
            assert single is not None
            assert answer is not None
            assert single.state == answer.state
            if single.state is LabelState.WARMING:
                seen.clear()
                continue
            seen.append(logits_of(single))
            np.testing.assert_allclose(logits_of(answer), np.mean(seen[-4:], axis=0), atol=1e-5)
        assert len(seen) > 3


def test_a_reset_starts_anew(make_model, noise) -> None:
    path, _ = make_model()
    frames = noise(13)
    with Recognizer.load(path) as recognizer:
        for k, frame in enumerate(frames):
            recognizer.push(frame, k * 50 * MS)
        recognizer.reset()
        later = [recognizer.push(frame, (1000 + k * 100) * MS) for k, frame in enumerate(frames[:4])]
    with Recognizer.load(path, smooth_ms=0) as alone:
        again = [alone.push(frame, k * 100 * MS) for k, frame in enumerate(frames[:4])]
    assert later[-1] is not None
    assert again[-1] is not None
    np.testing.assert_array_equal(later[-1].probabilities, again[-1].probabilities)
