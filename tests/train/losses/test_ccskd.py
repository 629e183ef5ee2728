from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.train.losses import (
    CcskdConnectors,
    CcskdSchedule,
    ccskd,
    ccskd_schedule,
    rkd_angle,
    rkd_distance,
    selective_soft_target,
    soft_target,
)


def batch(seed: int = 0, channels: tuple[int, ...] = (3, 4)) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=(5, c, 4 // (i + 1), 3))) for i, c in enumerate(channels)]


def logits(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(rng.normal(size=(5, 6))) * 2 for _ in range(2))
    labels = teacher.argmax(1)
    labels[::2] = (labels[::2] + 1) % 6  # the teacher is wrong on samples 0, 2 and 4
    return student, teacher, labels


def selective_in_loops(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, decay: float, t: float) -> float:
    """KLDivLoss(input = m log p_S, target = m p_T) = target * (log target - input), sample by sample."""
    total = 0.0
    for z_s, z_t, label in zip(student, teacher, labels, strict=True):
        p_s, p_t = (np.exp(z / t) / np.exp(z / t).sum() for z in (z_s, z_t))
        m = (float(np.argmax(p_t) == label) + 1.0) * decay
        total += sum(m * q * (math.log(m * q) - m * math.log(p)) for p, q in zip(p_s, p_t, strict=True))
    return total * t * t / len(student)


def test_selective_soft_target_by_hand() -> None:
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])  # p_S = (1/2, 1/2), p_T = (3/4, 1/4)
    wrong = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert selective_soft_target(student, teacher, torch.tensor([1])).item() == pytest.approx(wrong, rel=1e-6)
    # right: m = 2: 1.5 (ln 1.5 + 2 ln 2) + 0.5 (ln 0.5 + 2 ln 2)
    right = 1.5 * (math.log(1.5) + 2 * math.log(2)) + 0.5 * math.log(2)
    assert selective_soft_target(student, teacher, torch.tensor([0])).item() == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize(("decay", "temperature"), [(1.0, 1.0), (0.9, 1.0), (0.9**6, 4.0)])
def test_selective_soft_target_agrees_with_the_formula_in_loops(decay: float, temperature: float) -> None:
    student, teacher, labels = logits()
    expected = selective_in_loops(student.numpy(), teacher.numpy(), labels.numpy(), decay, temperature)
    value = selective_soft_target(student, teacher, labels, decay=decay, temperature=temperature)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_without_a_right_teacher_and_without_decay_it_is_the_plain_soft_target() -> None:
    student, teacher, _ = logits()
    never = (teacher.argmax(1) + 1) % 6
    torch.testing.assert_close(
        selective_soft_target(student, teacher, never), soft_target(student, teacher, temperature=1.0)
    )


def test_selective_soft_target_is_least_at_the_teacher_and_may_be_negative() -> None:
    student, teacher, labels = logits()
    best = teacher.clone().requires_grad_()
    selective_soft_target(best, teacher, labels, decay=0.7).backward()
    assert best.grad is not None
    assert best.grad.abs().max() < 1e-12
    never = (teacher.argmax(1) + 1) % 6
    assert selective_soft_target(teacher, teacher, never, decay=0.5).item() < 0
    assert torch.autograd.gradcheck(
        lambda s: selective_soft_target(s, teacher, labels, decay=0.7, temperature=2.0), (student.requires_grad_(),)
    )


def test_the_published_schedule_epoch_by_epoch() -> None:
    schedule = ccskd_schedule("cifar")
    #        epoch: channel, selective, decay of the mask
    expected = {
        1: (6.0, 0.0, 1.0),
        29: (6.0, 0.0, 1.0),
        30: (6.0, 0.0, 0.9),
        59: (6.0, 0.0, 0.9),
        60: (5.4, 0.0, 0.81),
        61: (5.4, 0.1, 0.81),
        159: (5.4, 0.1, 0.9**5),
        160: (4.86, 0.1, 0.9**5),
        200: (4.86, 0.1, 0.9**6),
    }
    for epoch, (channel, selective, decay) in expected.items():
        rates = schedule.rates(epoch)
        assert (rates.channel, rates.selective, rates.selective_decay) == pytest.approx((channel, selective, decay))
        assert (rates.relation, rates.soft) == (6.0, 0.1)


def test_by_default_no_term_is_off_in_any_epoch() -> None:
    assert min(min(ccskd_schedule().rates(epoch)) for epoch in range(1, 201)) > 0
    assert CcskdSchedule() == ccskd_schedule("always")


def test_a_schedule_scales_with_the_run_and_still_starts_inside_it() -> None:
    scaled = ccskd_schedule("cifar", epochs=80)
    assert (scaled.channel_marks, scaled.selective_epochs, scaled.start_epoch) == ((24, 64), 12, 25)
    assert ccskd_schedule("cifar", epochs=200) == ccskd_schedule("cifar")
    for epochs in range(1, 30):
        ccskd_schedule("cifar", epochs=epochs).check(epochs)


def test_a_run_that_never_reaches_the_start_is_refused() -> None:
    with pytest.raises(TrainingError, match="60 epochs whose selective distillation starts at epoch 61"):
        ccskd_schedule("cifar").check(60)
    ccskd_schedule("cifar").check(61)
    CcskdSchedule(start_epoch=61, selective_rate=0.0).check(60)


def test_schedules_that_make_no_sense_raise() -> None:
    with pytest.raises(TrainingError, match="epoch 0"):
        CcskdSchedule().rates(0)
    with pytest.raises(TrainingError, match="decays above 0"):
        CcskdSchedule(selective_decay=0.0)
    with pytest.raises(TrainingError, match="start_epoch from 1"):
        CcskdSchedule(start_epoch=0)
    with pytest.raises(TrainingError, match="did you mean 'cifar'"):
        ccskd_schedule("cifar10")  # type: ignore[arg-type]


def test_ccskd_is_the_sum_of_its_parts() -> None:
    student, teacher = batch(1), batch(2)
    z_s, z_t, labels = logits()
    schedule = CcskdSchedule(
        channel_rate=2.0, channel_decay=0.5, channel_marks=(3,), relation_rate=3.0, selective_rate=0.7,
        soft_rate=0.2, selective_decay=0.8, selective_epochs=2, start_epoch=4,
    )  # fmt: skip
    features = relation = 0.0
    for s, t in zip(student, teacher, strict=True):
        v_s, v_t = (np.array([[channel.mean() for channel in sample] for sample in f.numpy()]) for f in (s, t))
        features += float(np.mean((v_s - v_t) ** 2))
        pair = torch.from_numpy(v_s), torch.from_numpy(v_t)
        relation += (rkd_distance(*pair) + 2 * rkd_angle(*pair)).item()
    plain = soft_target(z_s, z_t, temperature=2.0).item()
    selective = {e: selective_in_loops(z_s.numpy(), z_t.numpy(), labels.numpy(), 0.8 ** (e // 2), 2.0) for e in (2, 4)}
    expected = {
        2: 2.0 * features + 3.0 * relation + 0.2 * plain,
        4: 1.0 * features + 3.0 * relation + 0.2 * plain + 0.7 * selective[4],
    }
    for epoch, total in expected.items():
        value = ccskd(
            student, teacher, z_s, z_t, labels, epoch=epoch, connectors=None, schedule=schedule, temperature=2.0
        )
        assert value.item() == pytest.approx(total, rel=1e-12)


def test_the_default_is_the_published_weights_with_everything_on() -> None:
    student, teacher = batch(1), batch(2)
    value = ccskd(student, teacher, *logits(), epoch=1, connectors=None)
    published = CcskdSchedule(6.0, 0.9, (60, 160), 6.0, 0.1, 0.1, 0.9, 30, 1)
    assert value.item() == ccskd(student, teacher, *logits(), epoch=1, connectors=None, schedule=published).item()


def test_connectors_bring_every_layer_to_the_teachers_channels_and_learn() -> None:
    torch.manual_seed(0)
    connectors = CcskdConnectors((3, 4), (3, 6))
    assert [tuple(p.shape) for p in connectors.convolutions.parameters()] == [(3, 3, 1, 1), (6, 4, 1, 1)]
    student = [f.float().requires_grad_() for f in batch(1)]
    teacher = [f.float().abs().requires_grad_() for f in batch(2, (3, 6))]
    z_s, z_t, labels = logits()
    z_s, z_t = z_s.float().requires_grad_(), z_t.float().requires_grad_()
    assert connectors(student[1], 1).min() >= 0
    ccskd(student, teacher, z_s, z_t, labels, epoch=1, connectors=connectors).backward()
    assert all(f.grad is None for f in (*teacher, z_t))
    for learning in (*student, z_s, *connectors.parameters()):
        assert learning.grad is not None
        assert learning.grad.abs().max() > 0


@pytest.mark.slow
def test_the_gradient_is_right() -> None:
    student, teacher = [f.requires_grad_() for f in batch(1)], batch(2)
    z_s, z_t, labels = logits()
    assert torch.autograd.gradcheck(
        lambda a, b, z: ccskd([a, b], teacher, z, z_t, labels, epoch=40, connectors=None, chunk=2),
        (*student, z_s.requires_grad_()),
    )


def test_what_does_not_fit_raises() -> None:
    with pytest.raises(TrainingError, match="2 student and 1 teacher taps"):
        ccskd(batch(), batch()[:1], *logits(), epoch=1, connectors=None)
    with pytest.raises(TrainingError, match="project the student's channels"):
        ccskd(batch(), batch(channels=(3, 5)), *logits(), epoch=1, connectors=None)
    with pytest.raises(TrainingError, match="2 student and 1 teacher taps"):
        CcskdConnectors((3, 4), (3,))
    z_s, z_t, labels = logits()
    with pytest.raises(TrainingError, match="label 6 with 6 classes"):
        ccskd(
            batch(), batch(), z_s, z_t, labels + (labels == labels.max()) * (6 - labels.max()), epoch=1, connectors=None
        )
    with pytest.raises(TrainingError, match="decay 0"):
        selective_soft_target(z_s, z_t, labels, decay=0)
