from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.train.losses import MgcamAdapters, cross_graph, mgcam, normalize_graph, sample_graph


def maps(batch: int = 4, channels: int = 3, size: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, channels, size, size)))


def loops(student: np.ndarray, teacher: np.ndarray, tau: float = 1.0) -> float:
    """Eq. 1-6 for one stage, sample by sample, float64, another formula (direct differences, explicit D)."""

    def graph(f: np.ndarray) -> np.ndarray:
        b = len(f)
        e = np.array([[np.exp(-np.mean((f[m] - f[n]) ** 2) / 2) for n in range(b)] for m in range(b)])
        d = np.diag(e.sum(1) ** -0.5)
        return d @ e @ d

    q_s, q_t = graph(student), graph(teacher)
    logits = tau * q_s @ q_t.T / np.sqrt(len(student))
    a = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for m in range(len(student)):
        w_s = sum(a[m, n] * student[n] for n in range(len(student)))
        w_t = sum(a[m, n] * teacher[n] for n in range(len(student)))
        total += float(((w_t / np.linalg.norm(w_t) - w_s / np.linalg.norm(w_s)) ** 2).sum())
    return total / len(student)


def test_sample_graph_of_two_samples_by_hand() -> None:
    pair = torch.tensor([[0.0, 0.0], [2.0, 4.0]])  # squared distance 20, mean 10
    assert sample_graph(pair)[0, 1].item() == pytest.approx(math.exp(-5), rel=1e-5)
    assert sample_graph(pair, scale="sum")[0, 1].item() == pytest.approx(math.exp(-10), rel=1e-4)
    assert sample_graph(pair, scale="median")[0, 1].item() == pytest.approx(math.exp(-0.5), rel=1e-5)
    right_angle = torch.tensor([[3.0, 0.0], [0.0, 0.5]])  # unit vectors at 90 degrees: squared distance 2
    assert sample_graph(right_angle, scale="l2norm")[0, 1].item() == pytest.approx(math.exp(-1), rel=1e-5)


def test_normalize_graph_by_hand_and_its_spectrum() -> None:
    edges = torch.tensor([[1.0, 0.5], [0.5, 1.0]])  # rows sum to 3/2
    torch.testing.assert_close(normalize_graph(edges), edges / 1.5)
    normal = normalize_graph(sample_graph(maps(6)))
    torch.testing.assert_close(normal, normal.T)
    assert torch.linalg.eigvalsh(normal).abs().max().item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("scale", ["mean", "l2norm", "median", "sum"])
def test_identical_samples_have_edges_of_one(scale: str) -> None:
    twice = maps(2).float().repeat(2, 1, 1, 1).requires_grad_()
    edges = sample_graph(twice, scale=scale)  # type: ignore[arg-type]
    edges.sum().backward()
    assert edges[0, 2].item() == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(edges.diagonal(), torch.ones(4))
    assert twice.grad is not None
    assert torch.isfinite(twice.grad).all()


@pytest.mark.parametrize("tau", [1.0, 20.0])
def test_mgcam_agrees_with_the_equations_written_as_loops(tau: float) -> None:
    student, teacher = [maps(seed=1), maps(size=3, seed=2)], [maps(seed=3), maps(size=3, seed=4)]
    expected = np.mean([loops(s.numpy(), t.numpy(), tau) for s, t in zip(student, teacher, strict=True)])
    assert mgcam(student, teacher, tau=tau).item() == pytest.approx(expected, rel=1e-12)


def test_mean_reduction_is_the_sum_over_the_elements_of_the_map() -> None:
    student, teacher = [maps(seed=1)], [maps(seed=2)]
    ratio = mgcam(student, teacher) / mgcam(student, teacher, reduction="mean")
    assert ratio.item() == pytest.approx(3 * 2 * 2)


def test_all_pairs_average_every_student_with_every_teacher_stage() -> None:
    student, teacher = [maps(seed=1), maps(seed=2)], [maps(seed=3), maps(seed=4), maps(seed=5)]
    expected = np.mean([loops(s.numpy(), t.numpy()) for s in student for t in teacher])
    assert mgcam(student, teacher, pairs="all").item() == pytest.approx(expected, rel=1e-12)


def test_adapters_project_channels_where_they_differ_and_only_there() -> None:
    adapters = MgcamAdapters((3, 3), (3, 5)).double()
    assert [tuple(p.shape) for p in adapters.parameters()] == [(5, 3, 1, 1)]
    student, teacher = [maps(seed=1), maps(seed=2)], [maps(seed=3), maps(channels=5, seed=4)]
    mgcam(student, teacher, adapters=adapters).backward()
    gradient = next(adapters.parameters()).grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_other_sizes_are_pooled_to_the_smaller_and_channel_mean_needs_no_adapter() -> None:
    student, teacher = maps(channels=2, size=4, seed=1), maps(channels=6, size=2, seed=2)
    pooled = student.reshape(4, 2, 2, 2, 2, 2).mean((3, 5))
    value = mgcam([student], [teacher], align="channel_mean")
    # the graphs use the whole maps, so rebuild the mixing with them
    a = torch.softmax(normalize_graph(sample_graph(student)) @ normalize_graph(sample_graph(teacher)).T / 2, dim=-1)
    w_s, w_t = (torch.einsum("mn,nhw->mhw", a, f.mean(1)).flatten(1) for f in (pooled, teacher))
    cosine = (w_s * w_t).sum(1) / (w_s.norm(dim=1) * w_t.norm(dim=1))
    assert value.item() == pytest.approx((2 - 2 * cosine).mean().item(), rel=1e-10)


def test_cross_graph_of_two_samples_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0], [2.0, 4.0]]), torch.tensor([[0.0, 2.0], [2.0, 4.0]])
    # squared distances 4, 20 and 8, 0; means 2, 10 and 4, 0
    expected = torch.tensor([[math.exp(-1), math.exp(-5)], [math.exp(-2), 1.0]])
    torch.testing.assert_close(cross_graph(student, teacher), expected)
    torch.testing.assert_close(cross_graph(student, teacher, scale="sum"), expected**2)
    # the lower median of 0, 4, 8, 20 is 4
    torch.testing.assert_close(cross_graph(student, teacher, scale="median"), expected**0.5)


def test_mgcam_over_the_cross_graph_agrees_with_the_equations_written_as_loops() -> None:
    student, teacher = maps(seed=1), maps(seed=2)
    s, t = student.numpy(), teacher.numpy()
    e = np.array([[np.exp(-np.mean((s[m] - t[n]) ** 2) / 2) for n in range(4)] for m in range(4)])
    d = np.diag(e.sum(1) ** -0.5)
    q = d @ e @ d
    a = np.exp(3 * q @ q.T / 2)
    a /= a.sum(1, keepdims=True)
    w_s, w_t = (np.einsum("mn,ni->mi", a, f.reshape(4, -1)) for f in (s, t))
    cosine = (w_s * w_t).sum(1) / np.linalg.norm(w_s, axis=1) / np.linalg.norm(w_t, axis=1)
    value = mgcam([student], [teacher], graph="cross", tau=3.0)
    assert value.item() == pytest.approx(np.mean(2 - 2 * cosine), rel=1e-12)
    student.requires_grad_(), teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mgcam([x], [teacher], graph="cross", tau=3.0), (student,))
    mgcam([student], [teacher], graph="cross").backward()
    assert teacher.grad is None


def test_a_cross_graph_needs_equal_sizes_and_warns_when_it_has_no_edges() -> None:
    with pytest.raises(TrainingError, match=r"\(3, 2, 2\) student and \(5, 2, 2\) teacher elements"):
        mgcam([maps()], [maps(channels=5)], graph="cross", align="channel_mean")
    with pytest.raises(TrainingError, match="did you mean 'cross'"):
        mgcam([maps()], [maps()], graph="crossed")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="did you mean 'l2norm'"):
        sample_graph(maps(), scale="l2-norm")  # type: ignore[arg-type]
    far = (maps(seed=1).float() * 1e3).requires_grad_()
    with pytest.warns(UserWarning, match="cross graph has no edges"):
        loss = mgcam([far], [maps(seed=2).float()], graph="cross")
    loss.backward()
    assert far.grad is not None
    assert torch.isfinite(far.grad).all()


def test_dead_features_do_not_explode_the_gradient() -> None:
    dead = torch.zeros(4, 3, 2, 2, requires_grad=True)
    mgcam([dead], [maps(seed=3).float()], scale="l2norm").backward()
    assert dead.grad is not None
    assert dead.grad.abs().max() == 0
    one = maps(seed=1).float()
    one[2] = 0
    one.requires_grad_()
    sample_graph(one, scale="l2norm").square().sum().backward()
    assert one.grad is not None
    assert one.grad.abs().max() < 10


def test_gradients_are_right_and_none_reaches_the_teacher() -> None:
    student, teacher = maps(seed=1).requires_grad_(), maps(seed=2).requires_grad_()
    for options in ({}, {"scale": "l2norm", "tau": 5.0}, {"detach_attention": False, "align": "channel_mean"}):
        assert torch.autograd.gradcheck(lambda s, o=options: mgcam([s], [teacher], **o), (student,))
    free = torch.autograd.grad(mgcam([student], [teacher], tau=20.0), student)[0]
    detached = torch.autograd.grad(mgcam([student], [teacher], tau=20.0, detach_attention=True), student)[0]
    assert (free - detached).abs().max() > 1e-6
    mgcam([student], [teacher]).backward()
    assert teacher.grad is None


def test_a_batch_of_one_is_the_distance_of_the_normalised_maps() -> None:
    student, teacher = maps(batch=1, seed=1), maps(batch=1, seed=2)
    s, t = (f.flatten() / f.norm() for f in (student, teacher))
    assert mgcam([student], [teacher]).item() == pytest.approx((s - t).square().sum().item(), rel=1e-12)


def test_extreme_and_dead_features_stay_finite() -> None:
    for student in (maps().float() * 1e4, torch.zeros(4, 3, 2, 2), maps().float().sign() * 1e-20):
        leaf = student.clone().requires_grad_()
        loss = mgcam([leaf], [maps(seed=3).float()], scale="l2norm")
        loss.backward()
        assert torch.isfinite(loss)
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_literal_distances_make_the_graph_the_identity_and_say_so() -> None:
    student, teacher = maps(channels=64, size=8, seed=1), maps(channels=64, size=8, seed=2)
    with pytest.warns(UserWarning, match="sample graph is the identity") as caught:
        mgcam([student], [teacher], scale="sum")
    assert [str(w.message).partition(" ")[2].split("'")[0] for w in caught] == ["student", "teacher"]


def test_mismatches_raise_with_the_fix() -> None:
    with pytest.raises(TrainingError, match="adapters=MgcamAdapters"):
        mgcam([maps(channels=2)], [maps(channels=3)])
    with pytest.raises(TrainingError, match="1 student and 2 teacher stages"):
        mgcam([maps()], [maps(), maps()])


def test_bfloat16_features_are_compared_in_float32() -> None:
    student, teacher = maps(seed=1).bfloat16(), maps(seed=2).bfloat16()
    plain = mgcam([student.float()], [teacher.float()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = mgcam([student], [teacher])
    assert lowered.dtype is torch.float32
    assert lowered.item() == plain.item()


@pytest.mark.parametrize("option", ["reduction", "pairs", "align", "graph", "scale"])
def test_a_misspelt_option_is_refused(option: str) -> None:
    maps = [torch.randn(3, 2, 2, 2)]
    with pytest.raises(TrainingError, match=f"{option}='men'"):
        mgcam(maps, maps, **{option: "men"})  # type: ignore[arg-type]


def test_vectors_are_no_maps() -> None:
    with pytest.raises(TrainingError, match=r"maps \(b, c, h, w\)"):
        mgcam([torch.randn(3, 8)], [torch.randn(3, 8)])
