from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.gaf import gramian_angular_field


def arccos_form(signal: np.ndarray, method: str) -> np.ndarray:
    """Eq. 1-3 word for word, float64."""
    low, high = signal.min(-1, keepdims=True), signal.max(-1, keepdims=True)
    phi = np.arccos(np.clip(((signal - high) + (signal - low)) / (high - low), -1, 1))
    if method == "summation":
        return np.cos(phi[..., :, None] + phi[..., None, :])
    return np.sin(phi[..., :, None] - phi[..., None, :])


@pytest.mark.parametrize("method", ["summation", "difference"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e30])
def test_the_closed_form_is_the_arccos_form(method: str, scale: float) -> None:
    signal = np.random.default_rng(0).normal(0.4, 1, (2, 3, 51)).astype(np.float32) * np.float32(scale)
    field = gramian_angular_field(torch.from_numpy(signal), method=method)  # type: ignore[arg-type]
    assert field.shape == (2, 3, 51, 51)
    assert field.dtype is torch.float32
    assert field.numpy() == pytest.approx(arccos_form(signal.astype(np.float64), method), abs=1e-6)


def test_three_points_by_hand() -> None:
    """Least, middle, greatest: phi = 180, 90, 0 degrees."""
    signal = torch.tensor([-2.0, 1.0, 4.0])
    assert gramian_angular_field(signal).tolist() == [[1, 0, -1], [0, -1, 0], [-1, 0, 1]]
    # sin(phi_i - phi_j): sin 90 = 1 where the first is the earlier
    assert gramian_angular_field(signal, method="difference").tolist() == [[0, 1, 0], [-1, 0, 1], [0, -1, 0]]


def test_a_fixed_range_keeps_level_and_amplitude() -> None:
    """60 and 120 degrees at +-half of the range; what lies outside counts as its end."""
    signal = torch.tensor([4.0, -4.0, 9.0])
    field = gramian_angular_field(signal, value_range=(-8, 8))
    degrees = np.array([60.0, 120.0, 0.0])
    assert field.numpy() == pytest.approx(np.cos(np.radians(degrees[:, None] + degrees)), abs=1e-6)
    shifted = gramian_angular_field(torch.tensor([1.0, 2.0]), value_range=(0, 4))  # 120 and 90 degrees
    assert shifted.numpy() == pytest.approx(np.cos(np.radians([[240, 210], [210, 180]])), abs=1e-6)
    assert torch.equal(gramian_angular_field(signal * 2), gramian_angular_field(signal))
    assert not torch.allclose(gramian_angular_field(signal / 2, value_range=(-8, 8)), field, atol=0.1)


def test_constant_signals_and_single_values_are_ones() -> None:
    signal = torch.tensor([[3.0, 3.0, 3.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.5]])
    field = gramian_angular_field(signal)
    assert torch.equal(field[:2], torch.ones(2, 3, 3))
    assert field[2, 2, 2] == -1  # the middle between least and greatest
    assert gramian_angular_field(torch.tensor([[7.0]])).tolist() == [[[1.0]]]
    assert not gramian_angular_field(signal[:1], method="difference").any()
    assert gramian_angular_field(torch.zeros(2), value_range=(-1, 1)).tolist() == [[-1, -1], [-1, -1]]


def test_extreme_values_neither_overflow_nor_vanish() -> None:
    huge = torch.tensor([-3e38, 0.0, 3e38])
    assert gramian_angular_field(huge).tolist() == [[1, 0, -1], [0, -1, 0], [-1, 0, 1]]
    tiny = torch.tensor([-1e-44, 0.0, 1e-44])
    assert torch.isfinite(gramian_angular_field(tiny)).all()
    beside = torch.tensor([0.0, 1e-7, 1.0])  # x = -1 + 2e-7: 1 - x^2 would be off by a tenth
    sine = 2 * math.sqrt(1e-7)
    assert float(gramian_angular_field(beside, method="difference")[1, 2]) == pytest.approx(sine, rel=1e-6)


def test_half_precision_is_widened_also_under_autocast() -> None:
    signal = torch.linspace(-1, 2, 40)
    expected = gramian_angular_field(signal)
    for dtype in (torch.bfloat16, torch.float16):
        narrow = signal.to(dtype)
        assert torch.equal(gramian_angular_field(narrow), gramian_angular_field(narrow.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gramian_angular_field(signal), expected)
    assert gramian_angular_field(signal.double()).dtype is torch.float32


def test_a_nan_stays_in_its_signal() -> None:
    signal = torch.tensor([[0.0, math.nan, 1.0], [0.0, 0.5, 1.0]])
    field = gramian_angular_field(signal)
    assert field[0].isnan().all()
    assert field[1].isfinite().all()
    ranged = gramian_angular_field(signal[0], value_range=(-1, 1))
    assert ranged.isnan().tolist() == [[False, True, False], [True, True, True], [False, True, False]]


@pytest.mark.parametrize("method", ["summation", "difference"])
def test_gradients_are_those_of_the_arccos_form(method: str) -> None:
    """Inside the range; by autograd through arccos, float64."""
    values = torch.tensor([-0.6, 0.2, 0.9, -0.1], dtype=torch.float64, requires_grad=True)
    weights = torch.arange(16.0, dtype=torch.float64).reshape(4, 4) - 5

    def by_arccos(x: Tensor) -> Tensor:
        phi = x.arccos()
        pairs = (phi[:, None] + phi).cos() if method == "summation" else (phi[:, None] - phi).sin()
        return (pairs * weights).sum()

    (expected,) = torch.autograd.grad(by_arccos(values), values)
    field = gramian_angular_field(values, method=method, value_range=(-1, 1))  # type: ignore[arg-type]
    (given,) = torch.autograd.grad((field * weights).sum(), values)
    assert given.numpy() == pytest.approx(expected.numpy(), abs=2e-5)


@pytest.mark.parametrize("value_range", [None, (-1.0, 1.0)])
def test_gradients_are_finite_at_the_ends_of_the_range(value_range: tuple[float, float] | None) -> None:
    signal = torch.tensor([[-1.0, 1.0, 0.3, -5.0], [2.0, 2.0, 2.0, 2.0]], requires_grad=True)
    gramian_angular_field(signal, value_range=value_range).square().sum().backward()
    assert signal.grad is not None
    assert signal.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gramian_angular_field(torch.zeros(3, dtype=torch.int64)), r"\(3,\) of torch\.int64.*floating"),
        (lambda: gramian_angular_field(torch.zeros(3, 0)), r"\(3, 0\)"),
        (lambda: gramian_angular_field(torch.tensor(1.0)), r"signal \(\)"),
        (lambda: gramian_angular_field(torch.zeros(3), method="sumation"), "did you mean 'summation'"),  # type: ignore[arg-type]
        (lambda: gramian_angular_field(torch.zeros(3), value_range=(1, 1)), r"value_range=\(1, 1\)"),
        (lambda: gramian_angular_field(torch.zeros(3), value_range=(0, math.inf)), "finite"),
    ],
)
def test_what_is_no_signal_is_refused(call: object, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        call()  # type: ignore[operator]
