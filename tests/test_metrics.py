from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from kd_edge import metrics
from kd_edge.errors import KdEdgeError
from kd_edge.metrics import Detection

PREDICTIONS = np.array([0, 1, 1, 2, 0])
LABELS = np.array([0, 1, 2, 2, 1])


def test_accuracy_and_confusion_by_hand() -> None:
    assert metrics.accuracy(PREDICTIONS, LABELS) == pytest.approx(3 / 5)
    counts = metrics.confusion(PREDICTIONS, LABELS, 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_per_class_accuracy_is_nan_without_a_sample() -> None:
    found = metrics.per_class_accuracy(PREDICTIONS, LABELS, 4)
    np.testing.assert_allclose(found, [1.0, 0.5, 0.5, math.nan])


def test_macro_f1_by_hand() -> None:
    # F1: class 0 = 2*1/(1+2), class 1 = 2*1/(2+2), class 2 = 2*1/(2+1); class 3 occurs nowhere
    assert metrics.macro_f1(PREDICTIONS, LABELS, 4) == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)


def test_macro_f1_counts_a_predicted_class_without_samples_as_zero() -> None:
    """The answers of docs/adr/016: 0.333, not 0.667 over the classes with samples nor 0.133 over all five."""
    assert metrics.macro_f1(np.array([0, 3]), np.array([0, 0]), 5) == pytest.approx(1 / 3)
    logits = np.array([[9.0, 0, 0, 0], [0, 0, 0, 9.0]])
    figures = metrics.figures(logits, np.array([0, 0]), ("a", "b", "c", "d"), temperature=1.0)
    assert figures["macro_f1"] == pytest.approx(1 / 3)


def test_no_answer_is_a_miss_of_its_class_and_no_classs_answer() -> None:
    # class 0: 2*1/(1+1); class 1: 2*1/(2+1), one of its two clips has no answer
    assert metrics.macro_f1(np.array([0, -1, 1]), np.array([0, 1, 1]), 3) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.macro_f1(np.array([-1, -1]), np.array([0, 2]), 3) == 0.0
    assert metrics.accuracy(np.array([0, -1, 1]), np.array([0, 1, 1])) == pytest.approx(2 / 3)
    with pytest.raises(KdEdgeError, match="prediction -2"):
        metrics.macro_f1(np.array([-2]), np.array([0]), 3)
    with pytest.raises(KdEdgeError, match="label -1"):
        metrics.macro_f1(np.array([0]), np.array([-1]), 3)


def test_rows_of_counts_become_shares() -> None:
    found = metrics.row_shares([[3, 1], [0, 0]])
    assert found.dtype == np.float64
    assert found.tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_log_softmax_by_hand_and_finite_for_any_logits() -> None:
    found = metrics.log_softmax(np.log([[1.0, 3.0], [4.0, 4.0]]))
    np.testing.assert_allclose(found, np.log([[0.25, 0.75], [0.5, 0.5]]))
    np.testing.assert_allclose(metrics.log_softmax(np.array([1e4, -1e4])), [0.0, -2e4])
    np.testing.assert_allclose(
        metrics.log_softmax(np.array([2.0, 0.0]), 2.0), metrics.log_softmax(np.array([1.0, 0.0]))
    )


def test_top_k_by_hand_with_a_tie() -> None:
    scores = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    labels = np.array([1, 1])
    assert [metrics.top_k(scores, labels, k) for k in (1, 2, 3, 9)] == [0.0, 1.0, 1.0, 1.0]


def test_average_precision_by_hand() -> None:
    # ranked: hit, miss, hit -> (1/2)(1/1) + (1/2)(2/3)
    found = metrics.average_precision(np.array([0.1, 0.9, 0.5]), np.array([True, True, False]))
    assert found == pytest.approx(0.5 + 1 / 3)
    # one tie of all four: a single step of precision 1/4
    assert metrics.average_precision(np.zeros(4), np.array([False, True, False, False])) == pytest.approx(0.25)
    assert math.isnan(metrics.average_precision(np.zeros(2), np.array([False, False])))


def test_mean_average_precision_leaves_absent_classes_out() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    assert metrics.mean_average_precision(scores, np.array([0, 1])) == 1.0


def test_softmax_by_hand_and_at_extremes() -> None:
    np.testing.assert_allclose(metrics.softmax(np.array([[math.log(3.0), 0.0]])), [[0.75, 0.25]])
    np.testing.assert_allclose(metrics.softmax(np.array([2 * math.log(3.0), 0.0]), 2.0), [0.75, 0.25])
    np.testing.assert_allclose(metrics.softmax(np.array([1e4, -1e4, 1e4])), [0.5, 0.0, 0.5])


FLOATS = st.floats(-(2.0**127), 2.0**127, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=30), st.sampled_from([0.2, 1.0, 1.7, 10.0]))
def test_softmax_of_one_row_is_the_softmax(logits: list[float], temperature: float) -> None:
    row = metrics.softmax_row(logits, temperature)
    np.testing.assert_allclose(row, metrics.softmax(np.float32(logits), temperature), rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_softmax_of_a_row_that_is_not_finite_is_nan(broken: float, at: int) -> None:
    logits = [1e38, 0.0, -5.0]
    logits[at] = broken
    assert all(math.isnan(p) for p in metrics.softmax_row(logits))


def test_expected_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    # bin of 0.95: accuracy 1/2; bin of 0.6: accuracy 1 -> 2/4 * 0.45 + 2/4 * 0.4
    assert metrics.expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(0.425)
    # a confidence on an edge belongs to the lower bin: 0.5 -> (0.4, 0.5], apart from 0.6
    edge = np.array([[0.5, 0.5], [0.6, 0.4]])
    assert metrics.expected_calibration_error(edge, np.array([0, 1]), bins=10) == pytest.approx((0.5 + 0.6) / 2)


def test_reliability_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.6, 0.4], [0.5, 0.5]])
    binned = metrics.reliability(probabilities, np.array([0, 1, 0, 1]), bins=10)
    # (0.4, 0.5]: one, wrong; (0.5, 0.6]: one, right; (0.9, 1]: two, one of them right
    assert binned.counts.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 2]
    np.testing.assert_allclose(binned.confidence[[4, 5, 9]], [0.5, 0.6, 0.93])
    assert binned.accuracy[[4, 5, 9]].tolist() == [0.0, 1.0, 0.5]
    assert np.isnan(binned.confidence[:4]).all()
    assert np.isnan(binned.accuracy[6:9]).all()


def test_worst_confusions_by_hand() -> None:
    counts = [[5, 3, 2], [0, 0, 0], [1, 0, 3]]
    # of the first class 30 and 20 %, of the last 25 %
    assert metrics.worst_confusions(counts) == [(0, 1), (2, 0), (0, 2)]
    assert metrics.worst_confusions(counts, most=1) == [(0, 1)]
    assert metrics.worst_confusions(np.eye(3)) == []


def test_fit_temperature_by_hand() -> None:
    # 3 of 4 right at equal margin m: least NLL where sigmoid(m / T) = 3/4, so T = m / log 3
    logits = np.array([[4.0, 0.0]] * 4)
    labels = np.array([0, 0, 0, 1])
    assert metrics.fit_temperature(logits, labels) == pytest.approx(4 / math.log(3), abs=1e-4)


def test_fit_temperature_stays_inside_its_bounds() -> None:
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert metrics.fit_temperature(logits, np.array([0, 1])) == 1.0  # always right: nothing to fit
    assert metrics.fit_temperature(logits, np.array([1, 0])) == pytest.approx(10.0, rel=1e-4)


def test_fit_unknown_threshold_keeps_the_share_of_right_predictions() -> None:
    confidence = np.arange(1, 21) / 40 + 0.5  # 0.525 .. 1.0, all right
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    threshold = metrics.fit_unknown_threshold(probabilities, np.zeros(20, dtype=int))
    assert threshold == pytest.approx(0.55)  # 19 of 20 stay
    assert int((confidence >= threshold).sum()) == 19
    assert metrics.fit_unknown_threshold(probabilities, np.ones(20, dtype=int)) == 0.0


def test_paired_interval_by_hand() -> None:
    right_a = np.array([True, True, True, True, False, False])
    right_b = np.array([True, False, False, True, False, False])
    same = metrics.paired_interval(right_a, right_a, ["a", "a", "b", "b", "c", "c"])
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    found = metrics.paired_interval(right_a, right_b, ["a", "a", "b", "b", "c", "c"])
    # subjects gain 1/2, 1/2, 0: a mean of three draws is 0 with chance 1/27 and 1/2 with chance 8/27
    assert found.difference == pytest.approx(1 / 3)
    assert (found.low, found.high) == (0.0, 0.5)


def test_shapes_and_ranges_are_checked() -> None:
    with pytest.raises(KdEdgeError, match=r"shape \(2,\) for \(3,\)"):
        metrics.accuracy(np.zeros(2, dtype=int), np.zeros(3, dtype=int))
    with pytest.raises(KdEdgeError, match="label 4"):
        metrics.confusion(np.array([0]), np.array([4]), 4)
    with pytest.raises(KdEdgeError, match="prediction -1"):
        metrics.confusion(np.array([-1]), np.array([0]), 4)
    with pytest.raises(KdEdgeError, match="label 2"):
        metrics.top_k(np.zeros((1, 2)), np.array([2]), 1)
    with pytest.raises(KdEdgeError, match=r"\(1, 2\) for labels \(2,\)"):
        metrics.expected_calibration_error(np.zeros((1, 2)), np.array([0, 1]))
    with pytest.raises(KdEdgeError, match="temperature 0"):
        metrics.softmax(np.zeros(2), 0)
    with pytest.raises(KdEdgeError, match="N >= 1"):
        metrics.accuracy(np.zeros(0, dtype=int), np.zeros(0, dtype=int))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(2, 40), classes=st.integers(2, 6))
def test_agreement_with_scikit_learn(seed: int, samples: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    predictions = rng.integers(0, classes, samples)
    scores = np.round(rng.normal(size=(samples, classes)), 1)  # rounded: ties occur
    everything = list(range(classes))
    assert metrics.accuracy(predictions, labels) == pytest.approx(reference.accuracy_score(labels, predictions))
    counts = reference.confusion_matrix(labels, predictions, labels=everything)
    np.testing.assert_array_equal(metrics.confusion(predictions, labels, classes), counts)
    expected_f1 = reference.f1_score(labels, predictions, average="macro", zero_division=0)
    assert metrics.macro_f1(predictions, labels, classes) == pytest.approx(expected_f1)
    present = labels == labels[0]
    expected_ap = reference.average_precision_score(present, scores[:, 0])
    assert metrics.average_precision(scores[:, 0], present) == pytest.approx(expected_ap)
    expected_nll = reference.log_loss(labels, metrics.softmax(scores), labels=everything)
    assert metrics.negative_log_likelihood(scores, labels) == pytest.approx(expected_nll)


def test_sakdn_fmeasure_by_hand() -> None:
    logits = np.array([[2.0, 0.0], [3.0, 0.0], [0.0, 4.0], [1.0, 0.0]])
    # top-1: 0, 0, 1, 0; nearest other: 1 (as near as 3, the first counts), 0, 3 (17 against 20 and 25), 0
    assert metrics.sakdn_fmeasure(logits, np.array([0, 0, 1, 1])) == pytest.approx(3 / 4)  # both 3/4
    assert metrics.sakdn_fmeasure(logits, np.array([0, 1, 1, 1])) == pytest.approx(2 * (1 / 2) * (1 / 4) / (3 / 4))
    assert metrics.sakdn_fmeasure(logits[:1], np.array([0])) == 0  # no neighbour
    assert metrics.sakdn_fmeasure(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 0])) == 0
    assert metrics.sakdn_fmeasure(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([0, 1])) == 0  # nobody is its neighbour
    assert metrics.sakdn_fmeasure(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 1])) == 0  # all alike, none right
    assert metrics.sakdn_fmeasure(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 0])) == 1
    with pytest.raises(KdEdgeError, match="label 2"):
        metrics.sakdn_fmeasure(logits, np.array([0, 0, 1, 2]))


@pytest.mark.parametrize(("held", "offset"), [(1, 0.0), (90, 0.0), (1 << 22, 0.0), (90, 1e8)])
def test_sakdn_fmeasure_agrees_with_brute_force(monkeypatch: pytest.MonkeyPatch, held: int, offset: float) -> None:
    """In chunks of 1, 2 and all 37 rows, and with an offset far above the distances."""
    monkeypatch.setattr(metrics, "_DISTANCES", held)
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 37)
    logits = rng.normal(size=(37, 4)) + 0.8 * np.eye(4)[labels] + offset
    hits = 0
    for i, row in enumerate(logits):
        others = [(float(np.linalg.norm(row - other)), j) for j, other in enumerate(logits) if j != i]
        hits += int(labels[min(others)[1]] == labels[i])
    right = reference.accuracy_score(labels, logits.argmax(1))
    expected = 2 * right * (hits / 37) / (right + hits / 37)
    assert 0.2 < expected < 0.9
    assert metrics.sakdn_fmeasure(logits, labels) == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------------- detection in untrimmed video

FIRST, SECOND = Detection("v", 0, 0, 10), Detection("v", 0, 20, 30)


def proposal(of: Detection, score: float) -> Detection:
    return Detection(of.video, of.label, of.start, of.end, score)


def wrong(score: float) -> Detection:
    return Detection("v", 0, 100, 110, score)


def test_interval_overlap_has_no_plus_one_and_is_negative_when_disjoint() -> None:
    assert metrics.interval_overlap(FIRST, Detection("v", 0, 5, 15)) == pytest.approx(5 / 15)
    assert metrics.interval_overlap(FIRST, SECOND) == pytest.approx(-10 / 30)


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([proposal(FIRST, 0.9), proposal(SECOND, 0.8)], 1.0),  # perfect
        ([proposal(FIRST, 0.9)], 0.5),  # half is found
        ([proposal(FIRST, 0.9), wrong(0.5), proposal(SECOND, 0.1)], 2 / 3),  # precision 2/3 at both drops
        ([wrong(0.9), proposal(FIRST, 0.5), proposal(SECOND, 0.1)], 2 / 3),  # the very same: looked at on a match only
        ([proposal(FIRST, 0.9), proposal(FIRST, 0.8), proposal(SECOND, 0.7)], 5 / 6),  # dropping: 2/3 -> 1/2, 1, 0
        ([wrong(0.9)], 0.0),
        ([], 0.0),
    ],
)
def test_detection_average_precision_by_hand(detections: list[Detection], expected: float) -> None:
    assert metrics.detection_average_precision(detections, [FIRST, SECOND], iou=0.5) == pytest.approx(expected)


def test_duplicate_with_lower_score_costs_nothing_after_it_left() -> None:
    found = metrics.detection_average_precision([proposal(FIRST, 0.9), proposal(FIRST, 0.8)], [FIRST], iou=0.5)
    assert found == pytest.approx(1.0)  # precision 1/2, then 1 once the duplicate has left


def test_equal_scores_leave_in_the_order_given() -> None:
    # a match leaving first: best stays 1/2; the other way round precision is never better either, but with a
    # duplicate the order decides whether precision 1 is reached before the recall drops
    truth = [FIRST, SECOND]
    match_last = [proposal(FIRST, 0.5), proposal(FIRST, 0.5), wrong(0.5), proposal(SECOND, 0.5)]
    match_first = [proposal(SECOND, 0.5), wrong(0.5), proposal(FIRST, 0.5), proposal(FIRST, 0.5)]
    # match_last: 2/4; drop: 2/3 (recall 1); drop: 1/2 recall 1/2 -> 2/3 * 1/2; wrong; drop -> 2/3 * 1/2
    assert metrics.detection_average_precision(match_last, truth, iou=0.5) == pytest.approx(2 / 3)
    # match_first: 2/4; drop: 1/3 recall 1/2 -> 1/2 * 1/2; wrong; drop: 1/1; drop -> 1 * 1/2
    assert metrics.detection_average_precision(match_first, truth, iou=0.5) == pytest.approx(3 / 4)


def test_label_and_video_must_match() -> None:
    others = [Detection("w", 0, 0, 10, 0.9), Detection("v", 1, 0, 10, 0.9)]
    assert metrics.detection_average_precision(others, [FIRST], iou=0.5) == 0.0
    assert metrics.detection_f1(others, [FIRST], iou=0.5) == 0.0  # the published script divides by zero


def test_detection_f1_by_hand() -> None:
    found = metrics.detection_f1([proposal(FIRST, 0.9), proposal(FIRST, 0.1), wrong(0.5)], [FIRST, SECOND], iou=0.5)
    assert found == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_map_action_counts_empty_classes_as_zero() -> None:
    assert metrics.map_action([proposal(FIRST, 0.9)], [FIRST], iou=0.5, classes=51) == pytest.approx(1 / 51)
    with pytest.raises(KdEdgeError, match="label 0"):
        metrics.map_action([], [FIRST], iou=0.5, classes=0)


def test_map_video_counts_a_video_without_proposals_as_zero() -> None:
    truth = [FIRST, Detection("w", 3, 0, 10)]
    assert metrics.map_video([proposal(FIRST, 0.9)], truth, iou=0.5) == pytest.approx(0.5)
    with pytest.raises(KdEdgeError, match="video 'x'"):
        metrics.map_video([Detection("x", 0, 0, 1)], truth, iou=0.5)


def test_two_d_average_precision_by_hand() -> None:
    assert metrics.two_d_average_precision([proposal(FIRST, 1.0)], [FIRST]) == pytest.approx(1.0)
    half = Detection("v", 0, 0, 5, 1.0)  # overlap 1/2: found at 0.05 .. 0.50, ten of twenty
    assert metrics.two_d_average_precision([half], [FIRST]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(1, 0.05), (3, 0.10), (6, 0.25), (7, 0.30), (10, 0.50), (12, 0.55), (14, 0.65), (17, 0.80), (19, 0.90), (20, 1.0)],
)
def test_two_d_average_precision_takes_the_evaluators_own_overlaps(frames: int, expected: float) -> None:
    """``frames`` of 20: 3 * 0.05 = 0.15000000000000002 in floating point, which 3 of 20 frames do not reach."""
    found = metrics.two_d_average_precision([Detection("v", 0, 0, frames)], [Detection("v", 0, 0, 20)])
    assert found == pytest.approx(expected, abs=1e-12)


def test_detection_input_is_checked() -> None:
    with pytest.raises(KdEdgeError, match="iou 0"):
        metrics.detection_average_precision([], [FIRST], iou=0)
    with pytest.raises(KdEdgeError, match="from 5 to 5"):
        metrics.detection_average_precision([Detection("v", 0, 5, 5)], [Detection("v", 0, 5, 5)], iou=0.5)


def test_the_figures_of_a_summary_are_those_worked_out_by_hand() -> None:
    """Four clips of three classes, the third without a clip; the second clip is taken for class 0."""
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    logits, truth = np.log(probabilities).astype(np.float32), np.array([0, 1, 1, 1])
    figures = metrics.figures(logits, truth, ("drop", "throw", "clap"), temperature=1.0)
    assert figures["accuracy"] == 0.5
    assert figures["top5"] == 1.0
    assert figures["per_class"] == {"drop": 1.0, "throw": pytest.approx(1 / 3), "clap": None}
    assert figures["confusion"] == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # drop: its clip ranks first, 1; throw: 0.7, 0.3, 0.2 rank before 0.1, all three, 1
    assert figures["map"] == pytest.approx(1.0)
    assert figures["ece"] == pytest.approx((0.2 + 0.6 + abs(2 * 0.7 - 1)) / 4, abs=1e-6)
    json.dumps(figures, allow_nan=False)


def test_the_mean_average_precision_ranks_probabilities_not_logits() -> None:
    """A clip with large logits for every class must not outrank a clip that is sure of one."""
    logits, truth = np.array([[5.0, 4.9], [2.0, -2.0]], dtype=np.float32), np.array([1, 0])
    assert metrics.figures(logits, truth, ("drop", "throw"), temperature=1.0)["map"] == pytest.approx(1.0)
    assert metrics.figures(logits, truth[::-1], ("drop", "throw"), temperature=1.0)["map"] == pytest.approx(0.5)


def test_figures_of_scores_that_are_no_logits() -> None:
    decisions = np.array([[2.0, 1.0, -1.0], [0.5, 0.4, -3.0], [-1.0, 0.3, -0.2], [1.0, 2.0, -0.5]])
    labels = np.array([0, 1, 1, 1])
    result = metrics.figures(decisions, labels, ["sit", "stand", "wave"], temperature=None)
    assert result["accuracy"] == 0.75
    assert result["top5"] == 1
    assert result["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert result["map"] == pytest.approx((1 + (1 + 2 / 3 + 3 / 4) / 3) / 2)  # of sit and stand
    assert result["per_class"] == {"sit": 1.0, "stand": pytest.approx(2 / 3), "wave": None}
    assert result["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert result["ece"] is None


def test_wilson_intervals_by_hand() -> None:
    # z^2 = 3.841459: n = 10, all: centre = (1 + 0.192073) / 1.384146, half the same distance below 1
    assert metrics.proportion_interval(10, 10) == (pytest.approx(0.722467, abs=1e-6), 1.0)
    assert metrics.proportion_interval(0, 10) == (0.0, pytest.approx(0.277533, abs=1e-6))
    # p = 0.5, n = 100: 0.5 +- 1.959964 * sqrt(0.0025 + 0.00009603648) / 1.03841459
    assert metrics.proportion_interval(50, 100) == pytest.approx((0.403832, 0.596168), abs=1e-6)
    with pytest.raises(KdEdgeError, match="11 of 10"):
        metrics.proportion_interval(11, 10)
