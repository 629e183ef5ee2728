from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses import semantic_preserving


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_by_hand() -> None:
    features, targets = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 3.0], [0.0, 1, 0]])
    assert semantic_preserving(features, targets).item() == pytest.approx((4 + 9 + 1) / 6)
    assert semantic_preserving(features, targets, reduction="sum").item() == pytest.approx((13 + 1) / 2)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_sum_is_the_squared_length_and_the_mean_that_over_the_width(batch: int) -> None:
    features, targets = normal(batch, 300), normal(batch, 300, seed=1)
    lengths = np.linalg.norm((features - targets).numpy(), axis=1)
    assert semantic_preserving(features, targets, reduction="sum").item() == pytest.approx(np.mean(lengths**2))
    assert semantic_preserving(features, targets).item() == pytest.approx(np.mean(lengths**2) / 300)


@pytest.mark.parametrize(("reduction", "share"), [("mean", 2 / (4 * 3)), ("sum", 2 / 4)])
def test_the_gradient_reaches_the_features_only(reduction: str, share: float) -> None:
    features, targets = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    semantic_preserving(features, targets, reduction=reduction).backward()  # type: ignore[arg-type]
    torch.testing.assert_close(features.grad, share * (features - targets).detach())
    assert targets.grad is None


def test_bfloat16_and_extremes() -> None:
    features, targets = normal(4, 300).bfloat16(), normal(4, 300, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = semantic_preserving(features, targets, reduction="sum")
    assert lowered.dtype is torch.float32
    assert lowered.item() == semantic_preserving(features.float(), targets.float(), reduction="sum").item()
    huge = torch.full((2, 300), 1e4, requires_grad=True)
    loss = semantic_preserving(huge, -huge.detach())
    loss.backward()
    assert loss.item() == pytest.approx(4e8)
    assert huge.grad is not None
    assert torch.isfinite(huge.grad).all()
    assert semantic_preserving(huge, huge).item() == 0


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        ((4, 300), (4, 512), r"features \(4, 300\) and targets \(4, 512\).*width of the class vectors"),
        ((4, 3, 2), (4, 3, 2), r"\(b, D\) both"),
        ((4, 300), (1, 300), r"same batch"),
        ((0, 300), (0, 300), r"b >= 1"),
    ],
)
def test_shapes_are_checked(features: tuple[int, ...], targets: tuple[int, ...], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        semantic_preserving(torch.zeros(features), torch.zeros(targets))
    with pytest.raises(TrainingError, match="did you mean 'mean'"):
        semantic_preserving(torch.zeros(1, 2), torch.zeros(1, 2), reduction="men")  # type: ignore[arg-type]
