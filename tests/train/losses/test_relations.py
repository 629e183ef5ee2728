from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.train.losses import (
    CorrelationEmbedding,
    correlation_congruence,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)


def vectors(batch: int = 5, size: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, size)))


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def distance_in_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    b = len(student)
    tables = []
    for f in (student, teacher):
        d = {(m, n): max(math.dist(f[m], f[n]), 1e-6) for m in range(b) for n in range(b) if m != n}
        mean = sum(d.values()) / len(d)
        tables.append({key: value / mean for key, value in d.items()})
    return sum(huber(tables[0][key] - tables[1][key]) for key in tables[0]) / b**2


def angle_in_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    def cosine(f: np.ndarray, m: int, n: int, k: int) -> float:
        to_n, to_k = f[n] - f[m], f[k] - f[m]
        length = np.linalg.norm(to_n) * np.linalg.norm(to_k)
        return float(to_n @ to_k / length) if length > 0 else 0.0

    b = len(student)
    triples = itertools.product(range(b), repeat=3)
    return sum(huber(cosine(student, *t) - cosine(teacher, *t)) for t in triples) / b**3


def kernel_in_loops(f: np.ndarray, gamma: float, order: int) -> np.ndarray:
    b = len(f)
    table = np.zeros((b, b))
    for m, n in itertools.product(range(b), repeat=2):
        cosine = f[m] @ f[n] / np.linalg.norm(f[m]) / np.linalg.norm(f[n])
        series = sum((2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1))
        table[m, n] = math.exp(-2 * gamma) * series
    return table


def test_similarity_preserving_by_hand() -> None:
    # student: orthogonal, G_S = I; teacher: equal samples, G_T = 1 / sqrt(2) everywhere
    student, teacher = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.ones(2, 3)
    half = math.sqrt(0.5)
    assert similarity_preserving(student, teacher).item() == pytest.approx(
        (2 * (1 - half) ** 2 + 2 * 0.5) / 4, rel=1e-6
    )


def test_similarity_preserving_agrees_with_the_formula_in_loops() -> None:
    student, teacher = vectors(seed=1), vectors(size=7, seed=2)
    rows = []
    for f in (student.numpy(), teacher.numpy()):
        gram = [[sum(x * y for x, y in zip(f[m], f[n], strict=True)) for n in range(5)] for m in range(5)]
        rows.append([[v / math.hypot(*row) for v in row] for row in gram])
    expected = sum((rows[1][m][n] - rows[0][m][n]) ** 2 for m in range(5) for n in range(5)) / 25
    assert similarity_preserving(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    as_maps = similarity_preserving(student.reshape(5, 1, 2, 2), teacher.reshape(5, 7, 1, 1))
    assert as_maps.item() == pytest.approx(expected, rel=1e-12)


def test_correlation_congruence_by_hand() -> None:
    # cosines off the diagonal: 0 and 1; g = 0.5, P = 2: K = e^-1 (1 + x + x^2 / 2), the two diagonals are equal
    student, teacher = torch.tensor([[5.0, 0.0], [0.0, 0.1]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    expected = 2 * (math.exp(-1) * 1.5) ** 2 / 4
    assert correlation_congruence(student, teacher, gamma=0.5).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (0.4, 1), (1.3, 4)])
def test_correlation_congruence_agrees_with_the_series_in_loops(gamma: float, order: int) -> None:
    student, teacher = vectors(seed=1), vectors(size=7, seed=2)
    tables = [kernel_in_loops(f.numpy(), gamma, order) for f in (student, teacher)]
    expected = float(np.mean((tables[0] - tables[1]) ** 2))
    assert correlation_congruence(student, teacher, gamma=gamma, order=order).item() == pytest.approx(
        expected, rel=1e-10
    )


def test_a_long_series_is_the_gaussian_kernel() -> None:
    student, teacher = vectors(seed=1), vectors(seed=2)
    tables = []
    for f in (student.numpy(), teacher.numpy()):
        e = f / np.linalg.norm(f, axis=1, keepdims=True)
        tables.append(np.exp(-0.4 * ((e[:, None] - e[None]) ** 2).sum(-1)))
    value = correlation_congruence(student, teacher, gamma=0.4, order=20).item()
    assert value == pytest.approx(float(np.mean((tables[0] - tables[1]) ** 2)), rel=1e-9)


def test_delta_by_hand_and_it_depends_on_the_order_of_the_samples() -> None:
    student = torch.tensor([[1.0, -2.0], [3.0, 1.0], [0.0, 5.0]])
    zeros = torch.zeros(3, 2)
    # |1 * 3| + |-2 * 1| = 5 and |3 * 0| + |1 * 5| = 5
    assert correlation_congruence(student, zeros, variant="delta").item() == pytest.approx(5.0)
    swapped = correlation_congruence(student[[0, 2, 1]], zeros, variant="delta").item()
    assert swapped == pytest.approx((10 + 5) / 2)


def test_delta_on_embeddings_trains_both_of_them_but_not_the_teacher() -> None:
    embedding = CorrelationEmbedding(4, 6, size=3).double()
    student, teacher = vectors(seed=1).requires_grad_(), vectors(size=6, seed=2).requires_grad_()
    value = correlation_congruence(student, teacher, variant="delta", embedding=embedding)
    e_s = (
        student.detach().numpy() @ embedding.student.weight.detach().numpy().T + embedding.student.bias.detach().numpy()
    )
    e_t = (
        teacher.detach().numpy() @ embedding.teacher.weight.detach().numpy().T + embedding.teacher.bias.detach().numpy()
    )
    d = np.abs(e_s - e_t)
    assert value.item() == pytest.approx(np.mean([(d[n] * d[n + 1]).sum() for n in range(4)]), rel=1e-12)
    value.backward()
    assert teacher.grad is None
    assert student.grad is not None
    for parameter in embedding.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_rkd_distance_by_hand() -> None:
    # student at 0, 1, 3 on a line: distances 1, 2, 3, mean 2. Teacher: an equilateral triangle, all 1.
    student = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]], dtype=torch.float64)
    # relative distances 0.5, 1, 1.5 against 1: twice (1/8 + 0 + 1/8) over 9 entries
    assert rkd_distance(student, teacher).item() == pytest.approx(2 * 0.25 / 9, rel=1e-12)


def test_rkd_angle_by_hand() -> None:
    # Three on a line (0, 1, 3): cosines 1 at the ends, -1 in the middle. Equilateral: 1/2 everywhere.
    student = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]], dtype=torch.float64)
    # entries (m, n, k) and (m, k, n): ends |1 - 0.5| -> 1/8, middle |-1 - 0.5| -> 1; n = k is 1 in both
    assert rkd_angle(student, teacher).item() == pytest.approx(2 * (1 / 8 + 1 / 8 + 1) / 27, rel=1e-12)


def test_rkd_agrees_with_the_formulas_in_loops() -> None:
    student, teacher = vectors(6, seed=1) * 3, vectors(6, size=7, seed=2)
    s, t = student.numpy(), teacher.numpy()
    assert rkd_distance(student, teacher).item() == pytest.approx(distance_in_loops(s, t), rel=1e-12)
    assert rkd_angle(student, teacher).item() == pytest.approx(angle_in_loops(s, t), rel=1e-12)


def test_rkd_with_duplicates_agrees_with_the_formulas_in_loops() -> None:
    student, teacher = vectors(6, seed=1), vectors(6, seed=2)
    student[3], teacher[5] = student[1], teacher[0]
    s, t = student.numpy(), teacher.numpy()
    assert rkd_distance(student, teacher).item() == pytest.approx(distance_in_loops(s, t), rel=1e-12)
    assert rkd_angle(student, teacher).item() == pytest.approx(angle_in_loops(s, t), rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 4, 7, 100])
def test_the_angles_and_their_gradient_do_not_depend_on_the_chunk(chunk: int) -> None:
    student, teacher = vectors(7, seed=1).requires_grad_(), vectors(7, seed=2)
    values = {c: rkd_angle(student, teacher, chunk=c) for c in (3, chunk)}
    gradients = {c: torch.autograd.grad(v, student)[0] for c, v in values.items()}
    torch.testing.assert_close(values[chunk], values[3], rtol=1e-13, atol=0)
    torch.testing.assert_close(gradients[chunk], gradients[3], rtol=1e-11, atol=1e-15)


def test_gradients_are_right() -> None:
    student, teacher = vectors(seed=1).requires_grad_(), vectors(size=7, seed=2)
    for loss in (
        similarity_preserving,
        correlation_congruence,
        rkd_distance,
        lambda s, t: rkd_angle(s, t, chunk=2),
        lambda s, t: correlation_congruence(s, t[:, :4], variant="delta"),
    ):
        assert torch.autograd.gradcheck(lambda s, f=loss: f(s, teacher), (student,))


def test_relations_ignore_what_they_should_ignore() -> None:
    student, teacher = vectors(seed=1), vectors(seed=2)
    turned = torch.linalg.qr(vectors(4, seed=3))[0]
    torch.testing.assert_close(rkd_distance(7 * student @ turned + 2, teacher), rkd_distance(student, teacher))
    torch.testing.assert_close(rkd_angle(7 * student @ turned + 2, teacher), rkd_angle(student, teacher))
    torch.testing.assert_close(
        similarity_preserving(7 * student @ turned, teacher), similarity_preserving(student, teacher)
    )
    each = torch.tensor([1.0, 5.0, 0.1, 2.0, 30.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        correlation_congruence(each * student, teacher), correlation_congruence(student, teacher)
    )


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_equal_samples_far_from_the_origin_are_equal_in_float32_too(offset: float) -> None:
    student = (vectors(3, size=512, seed=1).float() + offset).repeat(2, 1)
    teacher = vectors(6, size=512, seed=2).float()
    expected = distance_in_loops(student.double().numpy(), teacher.double().numpy())
    assert rkd_distance(student, teacher).item() == pytest.approx(expected, rel=1e-4)
    expected = angle_in_loops(student.double().numpy(), teacher.double().numpy())
    assert rkd_angle(student, teacher).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [similarity_preserving, correlation_congruence, rkd_distance, rkd_angle])
@pytest.mark.parametrize("case", ["all equal", "all zero", "one zero"])
def test_a_dead_student_gets_a_gradient_of_ordinary_size(loss: object, case: str) -> None:
    student = {
        "all equal": torch.full((4, 8), 1e4),
        "all zero": torch.zeros(4, 8),
        "one zero": vectors(4, 8, seed=1).float() * torch.tensor([1.0, 1.0, 0.0, 1.0])[:, None],
    }[case].requires_grad_()
    value = loss(student, vectors(4, 8, seed=2).float())  # type: ignore[operator]
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert student.grad.abs().max() < 10


def test_two_samples_have_only_a_distance_and_it_is_relative() -> None:
    student, teacher = vectors(2, seed=1), vectors(2, seed=2)
    assert rkd_distance(student, teacher).item() == 0
    assert rkd_angle(student, teacher).item() == pytest.approx(0, abs=1e-15)
    assert similarity_preserving(student, teacher).item() > 0


def test_options_out_of_range_raise() -> None:
    with pytest.raises(TrainingError, match="chunk 0"):
        rkd_angle(vectors(), vectors(), chunk=0)
    with pytest.raises(TrainingError, match=r"variant='rfb' .did you mean 'rbf'"):
        correlation_congruence(vectors(), vectors(), variant="rfb")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="gamma 0"):
        correlation_congruence(vectors(), vectors(), gamma=0)
    with pytest.raises(TrainingError, match=r"4 student and 7 teacher elements.*CorrelationEmbedding"):
        correlation_congruence(vectors(), vectors(size=7), variant="delta")
