"""What holds for every loss: the teacher gets no gradient, float32 inside autocast, finite at the extremes, memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kd_edge.errors import TrainingError
from kd_edge.train import losses as L

Loss = Callable[[Tensor, Tensor], Tensor]
CHANNELS, SIZE, CLASSES = 8, 4, 8
VECTORS = torch.randn(CLASSES, 5, generator=torch.Generator().manual_seed(1))


def _pooled(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3))


def _scores(features: Tensor) -> Tensor:
    return _pooled(features)[:, :CLASSES]


def _labels(features: Tensor) -> Tensor:
    return torch.arange(len(features)) % CLASSES


LOSSES: dict[str, Loss] = {
    "soft_target": lambda s, t: L.soft_target(_pooled(s), _pooled(t)),
    "logit_mse": lambda s, t: L.logit_mse(_pooled(s), _pooled(t)),
    "dkd": lambda s, t: L.dkd(_pooled(s), _pooled(t), _labels(s), target_weight=0.7, nontarget_weight=0.35),
    "selective": lambda s, t: L.selective_soft_target(_pooled(s), _pooled(t), _labels(s), decay=0.9),
    "hint_mse": lambda s, t: L.hint_mse(s, t),
    "attention": lambda s, t: L.attention_transfer([s], [t]),
    "attention paper": lambda s, t: L.attention_transfer([s], [t], variant="paper"),
    "attention sakdn": lambda s, t: L.attention_transfer([s], [t], variant="sakdn"),
    "similarity": lambda s, t: L.similarity_preserving(s, t),
    "correlation": lambda s, t: L.correlation_congruence(s, t),
    "correlation delta": lambda s, t: L.correlation_congruence(s, t, variant="delta"),
    "rkd_distance": lambda s, t: L.rkd_distance(s, t),
    "rkd_angle": lambda s, t: L.rkd_angle(s, t, chunk=2),
    "ccskd": lambda s, t: L.ccskd([s], [t], _pooled(s), _pooled(t), _labels(s), epoch=1, connectors=None, chunk=2),
    "mgcam": lambda s, t: L.mgcam([s], [t], scale="l2norm"),
    "mgcam cross": lambda s, t: L.mgcam([s], [t], graph="cross", scale="l2norm"),
    "gsdm": lambda s, t: L.gsdm([s], [t], _scores(s), _scores(s)[:1] - 1, _scores(t), _scores(t)[:1] - 1, VECTORS),
    "gsdm channel": lambda s, t: L.gsdm(
        [s], [t], _scores(s), _scores(s) * 0, _scores(t), _scores(t) * 0, VECTORS, weighting="channel"
    ),
    "contrastive": lambda s, t: L.contrastive(s, t),
    "contrastive both ways": lambda s, t: L.contrastive(s, t, symmetric=True),
    "semantic": lambda s, t: L.semantic_preserving(_pooled(s), _pooled(t), reduction="sum"),
}
POOLED = ("soft_target", "logit_mse", "dkd", "selective", "ccskd", "gsdm", "gsdm channel", "semantic")
RELATIONS = ("similarity", "correlation", "correlation delta", "rkd_distance", "rkd_angle", "contrastive")
every = pytest.mark.parametrize("name", LOSSES)


def features(batch: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, batch, CHANNELS, SIZE, SIZE, generator=generator)
    return pair[0], pair[1]


@every
def test_the_student_learns_the_teacher_does_not_and_the_value_is_a_scalar(name: str) -> None:
    student, teacher = (f.requires_grad_() for f in (f.clone() for f in features()))
    loss = LOSSES[name](student, teacher)
    assert loss.shape == ()
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0


@every
def test_autocast_and_bfloat16_features_do_not_lower_the_precision(name: str) -> None:
    student, teacher = (f.bfloat16() for f in features())
    if name in POOLED:  # the test's own pooling must not round
        student, teacher = student.float(), teacher.float()
    leaf = student.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = LOSSES[name](leaf, teacher)
    lowered.backward()
    assert lowered.dtype is torch.float32
    plain = student.float().requires_grad_()
    expected = LOSSES[name](plain, teacher.float())
    expected.backward()
    assert lowered.item() == expected.item()
    assert plain.grad is not None
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, plain.grad.to(leaf.dtype))


@every
@pytest.mark.parametrize("case", ["huge", "zero", "tiny", "equal samples", "equal networks", "one dead sample"])
def test_values_and_gradients_are_finite_at_the_extremes(name: str, case: str) -> None:
    student, teacher = features()
    student, teacher = {
        "huge": (student.sign() * 1e4, -teacher.sign() * 1e4),
        "zero": (student * 0, teacher * 0),
        "tiny": (student * 1e-20, teacher * 1e-20),
        "equal samples": (student[:1].repeat(6, 1, 1, 1), teacher[:1].repeat(6, 1, 1, 1)),
        "equal networks": (student, student.clone()),
        "one dead sample": (student * (torch.arange(6) != 2)[:, None, None, None], teacher),
    }[case]
    leaf = student.clone().requires_grad_()
    loss = LOSSES[name](leaf, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.abs().max() < 1e5


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("value", [1.0, 0.0, float("inf")])
def test_one_sample_has_no_relations(name: str, value: float) -> None:
    student = torch.full((1, CHANNELS, SIZE, SIZE), value, requires_grad=True)
    loss = LOSSES[name](student, features(1)[1])
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.abs().max() == 0


@every
@pytest.mark.parametrize("batches", [(4, 5), (1, 4), (0, 0)])
def test_unequal_and_empty_batches_raise(name: str, batches: tuple[int, int]) -> None:
    student, teacher = features(batches[0])[0], features(batches[1])[1]
    with pytest.raises(TrainingError, match=rf"\({batches[0]}.*\({batches[1]}"):
        LOSSES[name](student, teacher)


class Peak(TorchDispatchMode):
    """Most bytes alive at once in tensors made inside the block, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


def peak_bytes(loss: Loss, batch: int, channels: int = 64) -> int:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(batch, channels, 1, 1, generator=generator) for _ in range(2))
    student.requires_grad_()
    with Peak() as peak:
        loss(student, teacher).backward()
    return peak.peak


def grows_like_graphs(loss: Loss) -> bool:
    """Whether the peak is linear in b plus at most 16 float32 matrices (b, b)."""
    return peak_bytes(loss, 128) <= 2 * peak_bytes(loss, 64) + 2 * 16 * 4 * 64**2


def test_the_measure_sees_a_cubic_tensor() -> None:
    def cube(s: Tensor, t: Tensor) -> Tensor:
        return ((s.flatten(1) @ t.flatten(1).T)[:, :, None] * s.flatten(1)[None, :, :1].mT).sum()

    assert not grows_like_graphs(cube)


@every
def test_memory_is_linear_in_the_batch_apart_from_b_by_b_graphs(name: str) -> None:
    assert grows_like_graphs(LOSSES[name])


@pytest.mark.slow
def test_the_angles_never_hold_b_cubed_values() -> None:
    def angles(chunk: int) -> Loss:
        return lambda s, t: L.rkd_angle(s, t, chunk=chunk)

    assert peak_bytes(angles(1), 128) < 4 * 128**3 / 16
    assert peak_bytes(angles(8), 128) < 4 * 128**3 / 2
    assert peak_bytes(angles(128), 128) > 4 * 128**3
