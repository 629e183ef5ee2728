from __future__ import annotations

import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.train.losses import dense_regression

NAN = float("nan")


def test_small_errors_are_squares_large_ones_sizes() -> None:
    """Smooth L1: 0.5 e^2 below 1, |e| - 0.5 above; errors 0.5, 0, 3."""
    value = dense_regression(torch.tensor([[0.5, 1.0, -1.0]]), torch.tensor([[0.0, 1.0, 2.0]]))
    assert value.item() == pytest.approx((0.125 + 0.0 + 2.5) / 3)


def test_what_is_not_there_counts_for_nothing_and_sends_no_gradient() -> None:
    prediction = torch.tensor([[0.5, 9.0], [9.0, 2.0]], requires_grad=True)
    value = dense_regression(prediction, torch.tensor([[0.0, NAN], [NAN, 0.0]]), weights=torch.tensor([2.0, 1.0]))
    assert value.item() == pytest.approx((2 * 0.125 + 1.5) / 2)
    value.backward()
    assert prediction.grad is not None
    assert prediction.grad.tolist() == [[0.5, 0.0], [0.0, 0.5]]  # 2 x 0.5 / 2, and 1 / 2


def test_nothing_at_all_is_zero_with_a_gradient_of_zero() -> None:
    prediction = torch.ones(2, 3, requires_grad=True)
    value = dense_regression(prediction, torch.full((2, 3), NAN))
    value.backward()
    assert value.item() == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


def test_half_precision_is_computed_in_float32() -> None:
    prediction = torch.full((1, 4000), 300.0, dtype=torch.float16)
    value = dense_regression(prediction, torch.zeros(1, 4000, dtype=torch.float16))
    assert (value.dtype, value.item()) == (torch.float32, 299.5)


def test_no_gradient_reaches_the_target() -> None:
    target = torch.zeros(1, 2, requires_grad=True)
    dense_regression(torch.ones(1, 2, requires_grad=True), target).backward()
    assert target.grad is None


@pytest.mark.parametrize(("shape", "weights"), [((2, 4), None), ((3, 3), None), ((2, 3), torch.ones(2))])
def test_shapes_that_differ(shape: tuple[int, int], weights: torch.Tensor | None) -> None:
    with pytest.raises(TrainingError, match="the same shape"):
        dense_regression(torch.zeros(2, 3), torch.zeros(shape), weights=weights)
