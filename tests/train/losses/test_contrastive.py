"""The global contrastive loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.train.losses import contrastive

E1, E2 = [1.0, 0.0], [0.0, 1.0]


def test_by_hand() -> None:
    """Teachers along x and y; students along x and at 3-4-5 between: likeness [[1, 0.6], [0, 0.8]], T = 0.2."""
    teacher, student = torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[7.0, 0.0], [3.0, 4.0]])
    by_teacher = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-4))) / 2
    by_student = (math.log(1 + math.exp(-5)) + math.log(1 + math.exp(-1))) / 2
    assert contrastive(student, teacher, temperature=0.2).item() == pytest.approx(by_teacher, rel=1e-6)
    both = contrastive(student, teacher, temperature=0.2, symmetric=True).item()
    assert both == pytest.approx((by_teacher + by_student) / 2, rel=1e-6)


@pytest.mark.parametrize("size", [1e20, 1e30, 1e-5])
def test_how_long_the_vectors_are_changes_nothing(size: float) -> None:
    """Though the squares of the large ones are beyond float32: likeness is [[1, 0.6], [0, 0.8]] as above."""
    teacher = size * torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    student = (size * torch.tensor([[1.0, 0.0], [1.2, 1.6]])).requires_grad_()
    value = contrastive(student, teacher, temperature=0.2)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-4))) / 2
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.backward()
    assert student.grad is not None
    # The second student: (p - own) / (2 T) of each teacher, across its direction (0.6, 0.8), over its length 2.
    across = 0.8 / (1 + math.exp(2)) + 0.6 / (1 + math.exp(4))
    turned = [across * 0.8 / 0.8, -across * 0.6 / 0.8]
    assert [g * size for g in student.grad[1].tolist()] == pytest.approx(turned, rel=1e-4)


def test_students_that_are_all_the_same_cost_the_logarithm_of_the_batch() -> None:
    student = torch.ones(5, 3)
    assert contrastive(student, torch.randn(5, 3)).item() == pytest.approx(math.log(5), rel=1e-6)


def test_the_temperature_is_the_sources() -> None:
    """Swapped pairs: -log softmax of 0 against 1 / 0.07."""
    value = contrastive(torch.tensor([E2, E1]), torch.tensor([E1, E2])).item()
    assert value == pytest.approx(math.log1p(math.exp(1 / 0.07)), rel=1e-6)


def test_the_gradient_by_hand() -> None:
    """At T = 1 with unit students e1, e2 and teachers e1, e2: p = 1 / (1 + e) is each wrong answer's probability.

    d / d likeness[n, m] is -p / 2 on the diagonal and p / 2 beside it; only what is across a unit vector turns it.
    """
    student = torch.tensor([E1, E2], dtype=torch.float64, requires_grad=True)
    contrastive(student, torch.tensor([E1, E2], dtype=torch.float64), temperature=1.0).backward()
    wrong = 1 / (1 + math.e) / 2
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.tensor([[0, wrong], [wrong, 0]], dtype=torch.float64))


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients_are_right(symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: contrastive(s, teacher, symmetric=symmetric), (student,))


def test_lengths_do_not_count_and_the_order_does() -> None:
    student, teacher = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    scaled = student * torch.tensor([1.0, 20.0, 0.01, 3.0])[:, None]
    torch.testing.assert_close(contrastive(scaled, teacher), contrastive(student, teacher))
    moved = contrastive(student.roll(1, 0), teacher.roll(1, 0))
    torch.testing.assert_close(moved, contrastive(student, teacher))
    assert contrastive(student.roll(1, 0), teacher).item() != pytest.approx(moved.item(), rel=0.01)


@pytest.mark.parametrize(
    ("student", "temperature", "message"),
    [
        (torch.ones(2, 3), 0.07, "the same shape"),
        (torch.ones(2, 4), 0.0, "temperature 0.0"),
        (torch.ones(2, 4), math.nan, "temperature nan"),
    ],
)
def test_what_cannot_be_compared(student: torch.Tensor, temperature: float, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        contrastive(student, torch.ones(2, 4), temperature=temperature)
