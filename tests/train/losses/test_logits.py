from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_edge.errors import TrainingError
from kd_edge.train.losses import dkd, dkd_terms, logit_mse, soft_target


def tensors(classes: int = 5, batch: int = 6, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(7)
    student, teacher = (torch.from_numpy(rng.normal(size=(batch, classes)) * scale) for _ in range(2))
    return student, teacher, torch.from_numpy(rng.integers(0, classes, batch))


def test_soft_target_of_two_classes_worked_out_by_hand() -> None:
    # T = 1: teacher (3/4, 1/4), student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2)
    value = soft_target(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]), temperature=1.0)
    assert value.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), abs=1e-7)


def test_soft_target_is_t_squared_kl_and_mean_over_the_batch() -> None:
    student, teacher, _ = tensors()
    p_t = np.exp(teacher.numpy() / 4) / np.exp(teacher.numpy() / 4).sum(1, keepdims=True)
    p_s = np.exp(student.numpy() / 4) / np.exp(student.numpy() / 4).sum(1, keepdims=True)
    expected = 16 * np.mean(np.sum(p_t * np.log(p_t / p_s), axis=1))
    assert soft_target(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_logit_mse_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[0.0, 4.0], [3.0, -1.0]])
    assert logit_mse(student, teacher).item() == pytest.approx((1 + 4 + 9 + 0) / 4)


def test_dkd_terms_worked_out_by_hand() -> None:
    # T = 1, label 0. Teacher p = (.5, .3, .2), student p = (.25, .5, .25).
    teacher = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log() + 11.0
    student = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log() - 2.0
    target, nontarget = dkd_terms(student, teacher, torch.tensor([0]), temperature=1.0)
    assert target.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-12)
    assert nontarget.item() == pytest.approx(0.6 * math.log(0.6 / (2 / 3)) + 0.4 * math.log(0.4 / (1 / 3)), abs=1e-12)


def test_dkd_matches_the_reference_formula_with_probabilities() -> None:
    """The published form: binary probabilities, and softmax over logits with 1000 taken from the target's."""
    student, teacher, labels = tensors()
    one_hot = np.eye(5)[labels.numpy()]

    def softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def kl(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p / np.maximum(q, 1e-300), 1.0)), 0.0)) / len(p))

    p_s, p_t = softmax(student.numpy() / 4), softmax(teacher.numpy() / 4)
    binary = [np.stack([(p * one_hot).sum(1), (p * (1 - one_hot)).sum(1)], 1) for p in (p_t, p_s)]
    others = [softmax(z.numpy() / 4 - 1000 * one_hot) for z in (teacher, student)]
    expected = 0.7 * 16 * kl(*binary) + 0.35 * 16 * kl(*others)
    value = dkd(student, teacher, labels, target_weight=0.7, nontarget_weight=0.35)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_gradients_are_right_and_none_reaches_the_teacher() -> None:
    student, teacher, labels = tensors()
    student.requires_grad_(), teacher.requires_grad_()
    options = {"target_weight": 0.7, "nontarget_weight": 0.35}
    assert torch.autograd.gradcheck(lambda s: dkd(s, teacher, labels, **options), (student,))
    assert torch.autograd.gradcheck(lambda s: soft_target(s, teacher), (student,))
    (dkd(student, teacher, labels, **options) + soft_target(student, teacher)).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("factor", [400.0, 1e4, 1e30])
def test_extreme_logits_stay_finite(factor: float, temperature: float) -> None:
    student, teacher, labels = (t.float() if t.is_floating_point() else t for t in tensors(scale=1.0))
    student = (student * factor).requires_grad_()
    terms = dkd_terms(student, teacher * -factor, labels, temperature=temperature)
    total = terms[0] + terms[1] + soft_target(student, teacher * -factor, temperature=temperature)
    total.backward()
    assert torch.isfinite(torch.stack(terms)).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_two_classes_have_no_nontarget_term() -> None:
    student, teacher, labels = tensors(classes=2)
    assert dkd_terms(student, teacher, labels, temperature=4.0)[1].item() == 0.0


def test_one_class_and_shapes_that_differ_raise() -> None:
    with pytest.raises(TrainingError, match="at least two classes"):
        dkd_terms(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), temperature=1.0)
    with pytest.raises(TrainingError, match=r"\(2, 3\) and teacher logits \(2, 4\)"):
        soft_target(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(TrainingError, match="temperature 0"):
        soft_target(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 5], "label 5 with 5 classes. Expected labels from 0 to 4"),
        ([0, -1], "label -1 with 5 classes"),
        ([0, 255], "label 255 with 5 classes"),
        ([0, 1, 2], r"labels \(3,\) of torch.int64. Expected \(2,\)"),
        ([0.0, 1.0], "of torch.float32"),
        ([False, True], "of torch.bool"),
        ([[0], [1]], r"labels \(2, 1\)"),
    ],
)
def test_labels_that_are_no_class_are_named(labels: list[float], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        dkd(torch.zeros(2, 5), torch.zeros(2, 5), torch.tensor(labels), target_weight=1, nontarget_weight=1)


def test_an_empty_batch_has_no_mean() -> None:
    with pytest.raises(TrainingError, match=r"\(0, 5\)"):
        logit_mse(torch.zeros(0, 5), torch.zeros(0, 5))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 9), st.floats(0.5, 10), st.integers(0, 1000))
def test_equal_networks_cost_nothing_and_a_shift_of_all_logits_changes_nothing(
    classes: int, temperature: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, other = torch.from_numpy(rng.normal(size=(2, 4, classes)))
    labels = torch.from_numpy(rng.integers(0, classes, 4))
    same = dkd_terms(logits, logits + 3.0, labels, temperature=temperature)
    assert max(abs(t.item()) for t in same) < 1e-10
    shifted = dkd_terms(logits + 5.0, other, labels, temperature=temperature)
    plain = dkd_terms(logits, other, labels, temperature=temperature)
    torch.testing.assert_close(shifted, plain)
    assert min(t.item() for t in plain) >= -1e-12


def test_losses_are_float32_under_bfloat16_autocast() -> None:
    student, teacher, labels = (t.float() if t.is_floating_point() else t for t in tensors())
    plain = dkd(student, teacher, labels, target_weight=1, nontarget_weight=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = dkd(student, teacher, labels, target_weight=1, nontarget_weight=1)
        from_half = soft_target(student.bfloat16(), teacher.bfloat16())
    assert lowered.dtype is torch.float32
    assert from_half.dtype is torch.float32
    assert lowered.item() == plain.item()
