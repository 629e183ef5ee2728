"""Collaborative representation against numbers worked out by hand, and the opinion pool."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.study.classical.fusion.representation import CollaborativeRepresentation, opinion_pool

A = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
LABELS = np.array([0, 1, 1])


def test_coefficients_and_residuals_by_hand() -> None:
    """y = (2, 0): squared distances 1, 5, 2; (A A^T + diag(1, 5, 2)) c = (2, 0, 2) has c = (0.85, -0.05, 0.3)."""
    model = CollaborativeRepresentation(A, LABELS, 3, 1.0)
    assert model.coefficients(np.array([2.0, 0.0])) == pytest.approx([0.85, -0.05, 0.3], abs=1e-10)
    # class 0: (2, 0) - (0.85, 0); class 1: (2, 0) - (0.3, 0.25); class 2 has no vector
    assert model.residuals(np.array([[2.0, 0.0]]))[0] == pytest.approx([1.15, 2.9525**0.5, 2.0], abs=1e-10)
    assert model.parameters == 6


def test_the_coefficients_minimise_the_penalised_error() -> None:
    rng = np.random.default_rng(0)
    vectors, y = rng.normal(size=(7, 4)), rng.normal(size=4)
    weights = CollaborativeRepresentation(vectors, np.arange(7), 7, 0.3).coefficients(y)
    distances = np.linalg.norm(vectors - y, axis=1)

    def cost(c: np.ndarray) -> float:
        return float(np.sum((y - c @ vectors) ** 2) + 0.3 * np.sum((distances * c) ** 2))

    for step in 1e-3 * np.vstack([np.eye(7), -np.eye(7)]):
        assert cost(weights) < cost(weights + step)


def test_a_stronger_penalty_makes_all_but_copies_of_the_vector_vanish() -> None:
    model = CollaborativeRepresentation(A, LABELS, 2, 1e9)
    assert model.coefficients(np.array([1.0, 0.0])) == pytest.approx([1, 0, 0], abs=1e-8)  # a copy costs nothing
    assert np.abs(model.coefficients(np.array([2.0, 0.0]))).max() < 1e-8


def test_several_copies_of_the_vector_share_it() -> None:
    vectors = np.array([[0.6, 0.8], [0.6, 0.8], [1.0, 0.0]])
    model = CollaborativeRepresentation(vectors, np.array([0, 0, 1]), 2, 0.01)
    residuals = model.residuals(np.array([[0.6, 0.8]]))[0]
    assert residuals == pytest.approx([0, 1], abs=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_scaling_everything_changes_no_answer(scale: float) -> None:
    rng = np.random.default_rng(1)
    vectors, queries = rng.normal(size=(12, 5)), rng.normal(size=(4, 5))
    labels = np.arange(12) % 3
    plain = CollaborativeRepresentation(vectors, labels, 3, 0.1).residuals(queries)
    scaled = CollaborativeRepresentation(scale * vectors, labels, 3, 0.1).residuals(scale * queries)
    assert scaled / scale == pytest.approx(plain, rel=1e-6)


def test_the_pool_by_hand() -> None:
    """Beliefs (2/3, 1/3) and (1/4, 3/4): the roots of their products, (1/6)^0.5 and (1/4)^0.5, scaled to sum to 1."""
    first, second = np.array([[0.0, np.log(2)]]), np.array([[np.log(3), 0.0]])
    pooled = np.exp(opinion_pool([first, second], [0.5, 0.5]))[0]
    expected = np.array([(1 / 6) ** 0.5, 0.5])
    assert pooled == pytest.approx(expected / expected.sum(), abs=1e-12)
    assert np.exp(opinion_pool([first, second], [1.0, 0.0]))[0] == pytest.approx([2 / 3, 1 / 3], abs=1e-12)


def test_the_pool_of_extreme_residuals_is_finite() -> None:
    pooled = opinion_pool([np.array([[1e4, 2e4], [0.0, 0.0]]), np.array([[2e4, 1e4], [0.0, 0.0]])], [0.5, 0.5])
    assert np.exp(pooled) == pytest.approx(np.full((2, 2), 0.5))
