from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from kd_edge.errors import TrainingError
from kd_edge.train.losses import HintRegressor, attention_transfer, hint_mse


def maps(batch: int = 3, channels: int = 4, size: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, channels, size, size)))


def attention(feature: np.ndarray) -> np.ndarray:
    """One sample (c, h, w): the unit vector of the mean squares, position by position."""
    c, h, w = feature.shape
    energy = np.array([sum(feature[k, y, x] ** 2 for k in range(c)) / c for y in range(h) for x in range(w)])
    return energy / math.sqrt(sum(e * e for e in energy))


def test_hint_mse_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert hint_mse(student, teacher).item() == pytest.approx((1 + 4 + 0 + 1) / 4)


@pytest.mark.parametrize(
    ("student", "teacher", "kernel", "stride"),
    [
        ((4, 8, 6), (7, 4, 3), (3, 3), (2, 2)),
        ((4, 4, 3), (7, 8, 6), (4, 4), (2, 2)),
        ((4, 7, 7), (5, 7, 7), (1, 1), (1, 1)),
        ((4, 7, 9), (5, 4, 7), (4, 3), (1, 1)),
    ],
)
def test_the_regressor_gives_the_teachers_shape_in_each_case(
    student: tuple[int, int, int], teacher: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    regressor = HintRegressor(student, teacher)
    assert regressor.convolution.kernel_size == kernel
    assert regressor.convolution.stride == stride
    assert isinstance(regressor.convolution, nn.ConvTranspose2d) == (teacher[1] == 2 * student[1])
    out = regressor(torch.randn(2, *student))
    assert tuple(out.shape) == (2, *teacher)
    assert out.min() >= 0
    hint_mse(out, torch.rand(2, *teacher)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in regressor.parameters())


def test_the_regressor_is_a_convolution_then_batch_norm_then_relu() -> None:
    regressor = HintRegressor((2, 1, 1), (1, 1, 1))
    with torch.no_grad():
        regressor.convolution.weight.copy_(torch.tensor([[[[2.0]], [[1.0]]]]))
    # responses 2, 4, 6: mean 4, biased variance 8/3
    out = regressor(torch.tensor([[1.0, 0.0], [1.0, 2.0], [2.0, 2.0]])[:, :, None, None])
    assert out.flatten().tolist() == pytest.approx([0.0, 0.0, 2 / math.sqrt(8 / 3)], abs=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher"), [((4, 5, 5), (4, 7, 7)), ((4, 8, 3), (4, 4, 5)), ((4, 4, 5), (4, 8, 9))]
)
def test_a_student_map_that_is_too_small_says_so(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> None:
    with pytest.raises(TrainingError, match=r"smaller than the teacher's .* not half its size.*tap an earlier layer"):
        HintRegressor(student, teacher)


def test_one_value_per_channel_cannot_be_batch_normalised_in_training() -> None:
    regressor = HintRegressor((2, 1, 1), (3, 1, 1))
    with pytest.raises(TrainingError, match="more than one value per channel"):
        regressor(torch.ones(1, 2, 1, 1))
    assert tuple(regressor.eval()(torch.ones(1, 2, 1, 1)).shape) == (1, 3, 1, 1)


def test_hints_of_other_shapes_point_to_the_regressor() -> None:
    with pytest.raises(TrainingError, match="HintRegressor"):
        hint_mse(maps(channels=2), maps(channels=3))


def test_attention_transfer_by_hand() -> None:
    # squares (9, 16) -> Q_S = (9, 16) / sqrt(337); the teacher's is (1, 0)
    student, teacher = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2), torch.tensor([2.0, 0.0]).reshape(1, 1, 1, 2)
    first, second = 9 / math.sqrt(337) - 1, 16 / math.sqrt(337)
    assert attention_transfer([student], [teacher]).item() == pytest.approx((first**2 + second**2) / 2, rel=1e-6)
    paper = attention_transfer([student], [teacher], variant="paper").item()
    assert paper == pytest.approx(math.sqrt(first**2 + second**2), rel=1e-6)
    # the length plus 1e-6 shows where the features are small: squares (9e-6, 16e-6), length sqrt(337) * 1e-6
    small = attention_transfer([student * 1e-3], [teacher], variant="sakdn").item()
    damped = [9 / (math.sqrt(337) + 1) - 1, 16 / (math.sqrt(337) + 1)]
    assert small == pytest.approx(sum(d * d for d in damped) / 2, rel=1e-5)


@pytest.mark.parametrize("variant", ["squared", "paper", "sakdn"])
def test_attention_transfer_is_the_sum_over_layers_of_the_formula_in_loops(variant: str) -> None:
    student = [maps(channels=4, seed=1), maps(channels=2, size=3, seed=2)]
    teacher = [maps(channels=6, seed=3), maps(channels=5, size=3, seed=4)]
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        pairs = [attention(a.numpy()) - attention(b.numpy()) for a, b in zip(s, t, strict=True)]
        squares = [float((p**2).sum()) for p in pairs]
        expected += np.mean(np.sqrt(squares)) if variant == "paper" else np.mean(squares) / len(pairs[0])
    value = attention_transfer(student, teacher, variant=variant)  # type: ignore[arg-type]
    assert value.item() == pytest.approx(expected, rel=1e-5 if variant == "sakdn" else 1e-12)


def test_the_bigger_map_is_average_pooled_to_the_smaller_before_it_is_squared() -> None:
    student, teacher = maps(size=4, seed=1), maps(size=2, seed=2)
    pooled = student.reshape(3, 4, 2, 2, 2, 2).mean((3, 5))
    for pair in ((student, teacher), (teacher, student)):
        value = attention_transfer([pair[0]], [pair[1]]).item()
        assert value == pytest.approx(attention_transfer([pooled], [teacher]).item(), rel=1e-12)
    wide, tall = maps(size=4, seed=3)[:, :, :2], maps(size=4, seed=4)[:, :, :, :2]
    assert torch.isfinite(attention_transfer([wide], [tall]))


@pytest.mark.parametrize("variant", ["squared", "paper", "sakdn"])
def test_gradients_of_attention_transfer_are_right(variant: str) -> None:
    teacher = maps(seed=2)
    assert torch.autograd.gradcheck(
        lambda s: attention_transfer([s], [teacher], variant=variant),  # type: ignore[arg-type]
        (maps(size=8, seed=1).requires_grad_(),),
    )


@pytest.mark.parametrize("variant", ["squared", "paper", "sakdn"])
def test_equal_attention_costs_nothing_and_has_a_finite_gradient(variant: str) -> None:
    student = maps(seed=1).requires_grad_()
    loss = attention_transfer([student], [maps(seed=1)], variant=variant)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.abs().max() == 0


def test_taps_and_variants_that_do_not_exist_raise() -> None:
    with pytest.raises(TrainingError, match="2 student and 1 teacher taps"):
        attention_transfer([maps(), maps()], [maps()])
    with pytest.raises(TrainingError, match="0 student and 0 teacher taps"):
        attention_transfer([], [])
    with pytest.raises(TrainingError, match="did you mean 'squared'"):
        attention_transfer([maps()], [maps()], variant="square")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"maps \(b, c, h, w\)"):
        attention_transfer([torch.ones(2, 3)], [torch.ones(2, 3)])
