from __future__ import annotations

import numpy as np
import pytest

from kd_edge.adapt.gate import Gate, Others, Scored, fit_gate, gated
from kd_edge.health import FeatureReference
from kd_edge.metrics import softmax

ONE = Others(np.array([2.0]), np.array([[0.0], [2.0]]), np.array([[1.0]]), 0.5)
"""Two classes at 0 and 4, in units of the deviation 2 at 0 and 2; variance 1 + 0.5 within them, 1 between them."""


def test_one_direction_by_hand() -> None:
    # centre 1; 1.5 + 1 + RIDGE 1 = 3.5; (16 / 2 - 1) / 3.5 = 2 in units of the deviation, 1 of the feature
    np.testing.assert_allclose(ONE.directions(np.array([[16.0]])), [[1.0]], rtol=1e-12)
    assert ONE.spread(np.array([1.0])) == pytest.approx(6**0.5)  # 2 * sqrt(1.5)


def test_a_gate_by_hand() -> None:
    fit = fit_gate(ONE, np.array([[15.0], [17.0]], dtype=np.float32), np.array([0, 1]))
    # directions without one of them: 7.5 / 3.5 / 2 and 6.5 / 3.5 / 2; scores 15 * 7.5 / 7 and 17 * 6.5 / 7
    scores = np.array([112.5 / 7, 110.5 / 7])
    new, old, deviation = 223 / 14, 4.0, 6**0.5  # the scores' own deviation, 1 / 7, is smaller
    assert fit.nearest == 1
    assert fit.separation == pytest.approx((new - old) / (2 * deviation))
    slope, limit = (new - old) / 6, (new + old) / 2
    assert fit.gate.weights.tolist() == [pytest.approx(slope)]
    assert fit.gate.bias == pytest.approx(-slope * limit - np.log(2))
    assert fit.gate.bias == pytest.approx(-20.503101)
    np.testing.assert_allclose(fit.held_out, slope * (scores - limit) - np.log(2))
    assert fit.gate(np.array([[limit]], dtype=np.float32)) == pytest.approx(-np.log(2), abs=1e-5)


def test_what_was_recorded_here_moves_the_limit_and_never_the_other_way() -> None:
    features, folds = np.array([[15.0], [17.0]], dtype=np.float32), np.array([0, 1])
    plain = fit_gate(ONE, features, folds)
    far = fit_gate(ONE, features, folds, Scored(np.array([[7.0], [9.0]], dtype=np.float32), np.array([0, 0])))
    # class 0 lies at 8 here, not at 0: it is the nearest now; its deviation of 1 is less than sqrt(6)
    assert (plain.nearest, far.nearest) == (1, 0)
    assert far.separation == pytest.approx((223 / 14 - 8) / (2 * 6**0.5))
    near = fit_gate(ONE, features, folds, Scored(np.array([[-3.0], [-1.0]], dtype=np.float32), np.array([0, 0])))
    assert near.gate.bias == plain.gate.bias


def test_the_low_rank_solution_is_the_dense_one() -> None:
    rng = np.random.default_rng(0)
    others = Others(rng.uniform(0.5, 2, 6), rng.normal(size=(4, 6)), rng.normal(size=(3, 6)), 0.2)
    new = rng.normal(size=(2, 6))
    centre = others.means.mean(axis=0)
    between = (others.means - centre).T @ (others.means - centre) / 4
    dense = others.factors.T @ others.factors + between + 1.2 * np.eye(6)
    wanted = np.linalg.solve(dense, (new / others.deviation - centre).T).T / others.deviation
    np.testing.assert_allclose(others.directions(new), wanted, rtol=1e-10)


def test_of_many_windows_the_equations_are_those_of_the_features() -> None:
    rng = np.random.default_rng(0)
    others = Others(rng.uniform(0.5, 2, 6), rng.normal(size=(4, 6)), rng.normal(size=(50, 6)), 0.2)
    centre = others.means.mean(axis=0)
    between = (others.means - centre).T @ (others.means - centre) / 4
    dense = others.factors.T @ others.factors + between + 1.2 * np.eye(6)
    new = rng.normal(size=(2, 6))
    wanted = np.linalg.solve(dense, (new / others.deviation - centre).T).T / others.deviation
    np.testing.assert_allclose(others.directions(new), wanted, rtol=1e-10)


def test_thousands_of_kept_windows_take_no_memory_of_their_square() -> None:
    rng = np.random.default_rng(0)
    others = Others.of_windows(rng.normal(size=(20_000, 8)).astype(np.float32), np.arange(20_000) % 10)
    assert others.directions(rng.normal(size=(3, 8))).shape == (3, 8)  # 20,000 squared would be 3.2 GB


def test_what_is_beyond_all_numbers_is_refused() -> None:
    far = ONE._replace(means=np.array([[1e150], [2e150]]))
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="not finite"):
        fit_gate(far, np.array([[15.0], [17.0]], dtype=np.float32), np.array([0, 1]))


def test_windows_that_are_all_the_same_tell_nothing() -> None:
    alike = Others.of_windows(np.array([[1.0], [5.0]], dtype=np.float32), np.array([0, 1]))
    with pytest.raises(ValueError, match="do not differ within a class"):
        fit_gate(alike, np.array([[9.0], [9.0]], dtype=np.float32), np.array([0, 1]))


def test_a_reference_is_read_as_it_was_meant() -> None:
    reference = FeatureReference.of(
        means=np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32),
        deviation=np.array([0.5, 2.0], dtype=np.float32),
        directions=np.array([[0.6, 0.8]], dtype=np.float32),
        variances=np.array([5.0], dtype=np.float32),
        rest=1.0,
    )
    others = Others.of_reference(reference)
    assert others.deviation.tolist() == [0.5, 2.0]
    assert others.means.tolist() == [[2.0, 1.0], [6.0, 2.0]]
    np.testing.assert_allclose(others.factors, [[1.2, 1.6]], rtol=1e-3)  # sqrt(5 - 1) along the direction
    assert others.rest == 1.0
    joined = others.joined_by(np.array([0.5, 4.0]))
    assert joined.means.tolist() == [[2.0, 1.0], [6.0, 2.0], [1.0, 2.0]]


def test_windows_tell_means_and_covariance() -> None:
    features = np.array([[0, 0], [2, 0], [10, 4], [10, 8]], dtype=np.float32)
    others = Others.of_windows(features, np.array([0, 0, 1, 1]))
    # residuals (-1, 0), (1, 0), (0, -2), (0, 2): variances 0.5 and 2
    np.testing.assert_allclose(others.deviation, [0.5**0.5, 2**0.5])
    np.testing.assert_allclose(others.means * others.deviation, [[1, 0], [10, 6]])
    np.testing.assert_allclose(others.factors.T @ others.factors, np.eye(2), atol=1e-12)


def test_a_feature_that_never_changes_decides_nothing() -> None:
    features = np.array([[1, 5], [3, 5], [11, 5], [13, 5]], dtype=np.float32)
    others = Others.of_windows(features, np.array([0, 0, 1, 1]))
    fit = fit_gate(others, np.array([[30, 5], [31, 5]], dtype=np.float32), np.array([0, 1]))
    assert np.isfinite(fit.gate.weights).all()
    assert fit.gate.weights[1] == 0


def test_the_probability_of_a_new_class_is_its_log_odds_and_the_others_share_the_rest() -> None:
    logits = np.log(np.array([[1.0, 3.0]], dtype=np.float32))
    both = gated(logits, np.array([0.0]), 1.0)
    assert both[0, :2].tolist() == logits[0].tolist()
    np.testing.assert_allclose(softmax(both, 1.0), [[0.125, 0.375, 0.5]], rtol=1e-6)
    warm = gated(np.zeros((1, 2), dtype=np.float32), np.log(np.array([3.0])), 2.0)
    assert warm[0, 2] == pytest.approx(2 * np.log(6))
    np.testing.assert_allclose(softmax(warm, 2.0), [[0.125, 0.125, 0.75]], rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    both = gated(np.array([[1e4, -1e4]], dtype=np.float32), np.array([-5.0]), 0.5)
    assert both[0, 2] == pytest.approx(1e4 - 2.5)


def test_a_gate_is_linear() -> None:
    gate = Gate(np.array([1.0, -2.0], dtype=np.float32), 0.5)
    assert gate(np.array([[2.0, 1.0], [0.0, 0.0]], dtype=np.float32)).tolist() == [0.5, 0.5]
