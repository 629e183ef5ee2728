from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses import gsdm, map_distance, semantic_map, semantic_maps, semantic_weights
from kd_edge.train.losses.gsdm import Weighting

CLASSES, WIDTH = 5, 7
_WEIGHTINGS: tuple[Weighting, ...] = ("scalar", "channel")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def positive(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 1, size=shape))


VECTORS = normal(CLASSES, WIDTH, seed=99)


# ---------------------------------------------------------- the same in numpy: loops, explicit D, float64


def graph(logits: np.ndarray) -> np.ndarray:
    b = len(logits)
    w = np.array([[np.exp(-np.mean((logits[m] - logits[n]) ** 2) / 2) for n in range(b)] for m in range(b)])
    inverse = np.diag(1 / np.sqrt(w.sum(0) + 2.2e-16))
    return inverse @ w @ inverse


def embedding(logits: np.ndarray, kind: str) -> np.ndarray:
    vectors = VECTORS.numpy()
    if kind == "hard":
        return np.stack([vectors[int(np.argmax(row))] for row in logits])
    return np.stack([sum(p * v for p, v in zip(np.exp(z) / np.exp(z).sum(), vectors, strict=True)) for z in logits])


def omega_by_loops(logits: np.ndarray, ablated: np.ndarray, slope: str, kind: str) -> np.ndarray:
    full, blank = (graph(z) @ embedding(z, kind) for z in (logits, ablated))
    blank = np.broadcast_to(blank, full.shape)
    out = np.empty_like(full)
    for n in range(full.shape[0]):
        least = 0.01 * math.sqrt(sum(x * x for x in full[n]) / full.shape[1])
        for d in range(full.shape[1]):
            below = full[n, d]
            if slope == "stable" and abs(below) < least:
                below = least if below >= 0 else -least
            out[n, d] = (full[n, d] - blank[n, d]) / below
            if slope == "official":
                out[n, d] = max(0.0, out[n, d])
        if slope == "norm":
            out[n] = np.sqrt(np.sum((full[n] - blank[n]) ** 2)) / np.sqrt(np.sum(full[n] ** 2))
    return out


def map_by_loops(feature: np.ndarray, omega: np.ndarray, weighting: str) -> np.ndarray:
    (b, c, h, w), d = feature.shape, omega.shape[1]
    out = np.zeros((b, h, w))
    for n in range(b):
        for k in range(c):
            start, end = (0, d) if weighting == "scalar" else (k * d // c, -((k + 1) * d // -c))
            out[n] += np.mean(omega[n, start:end]) * feature[n, k]
    return np.maximum(out, 0)


def halved(maps: np.ndarray) -> np.ndarray:
    return (maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]) / 4


def scaled(one: np.ndarray) -> np.ndarray:
    length = math.sqrt(float(np.sum(one**2)))
    return one / length if length else one


# -------------------------------------------------------------------------------------------------- weights


def test_two_samples_by_hand() -> None:
    """Distance mean over K is 1, W = [[1, e], [e, 1]], e = exp(-1/2); D = 1 + e; F_a = (3, -4)."""
    logits, blank = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double(), torch.tensor([[0.0, 2.0]]).double()
    vectors = torch.tensor([[1.0, 2.0], [3.0, -4.0]]).double()
    e = math.exp(-0.5)
    full = [[(1 + 3 * e) / (1 + e), (2 - 4 * e) / (1 + e)], [(e + 3) / (1 + e), (2 * e - 4) / (1 + e)]]
    expected = [[(q - a) / q for q, a in zip(row, (3, -4), strict=True)] for row in full]
    assert expected[0] == pytest.approx([-0.709322, -14.080453], abs=1e-6)
    assert expected[1] == pytest.approx([-0.336352, -1.305799], abs=1e-6)
    found = semantic_weights(logits, blank, vectors, slope="stable")
    assert found.tolist()[0] == pytest.approx(expected[0], rel=1e-12)
    assert found.tolist()[1] == pytest.approx(expected[1], rel=1e-12)
    norm = semantic_weights(logits, blank, vectors, slope="norm")
    change = [math.hypot(row[0] - 3, row[1] + 4) / math.hypot(*row) for row in full]
    assert norm.tolist()[0] == pytest.approx([change[0]] * 2, rel=1e-12)
    assert norm.tolist()[1] == pytest.approx([change[1]] * 2, rel=1e-12)
    assert semantic_weights(logits, blank, vectors, slope="official").abs().max() == 0


@pytest.mark.parametrize(
    ("slope", "small", "expected"),
    [
        ("stable", 0.0, [3.0, 5 / (0.01 * math.sqrt(0.5))]),
        ("stable", -1e-3, [3.0, -4.999 / (0.01 * math.sqrt((1 + 1e-6) / 2))]),
        ("stable", 0.5, [3.0, 11.0]),
        ("official", 0.0, [3.0, 0.0]),
        ("official", 1e-3, [3.0, 5001.0]),
        ("official", -1e-3, [3.0, 0.0]),
        ("norm", 0.0, [math.sqrt(34)] * 2),
    ],
)
def test_a_small_denominator_by_hand(slope: Any, small: float, expected: list[float]) -> None:
    """One sample: QF = (1, small), Q_a F_a = (-2, -5)."""
    vectors = torch.tensor([[1.0, small], [-2.0, -5.0]], dtype=torch.float64)
    found = semantic_weights(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), vectors, slope=slope)
    assert found.tolist()[0] == pytest.approx(expected, rel=1e-6)


def test_a_soft_embedding_by_hand() -> None:
    """Probabilities 3/4 and 1/4: F = 3/4 * 8 + 1/4 * 4 = 7; blank: 6; (7 - 6) / 7."""
    logits, blank = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    found = semantic_weights(logits, blank, torch.tensor([[8.0], [4.0]]), embedding="soft")
    assert found.item() == pytest.approx(1 / 7, rel=1e-6)


@pytest.mark.parametrize("slope", ["stable", "official", "norm"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("blank_rows", [6, 1])
def test_weights_agree_with_loops(slope: Any, kind: Any, blank_rows: int) -> None:
    logits, blank = normal(6, CLASSES, seed=1) * 2, normal(blank_rows, CLASSES, seed=2)
    found = semantic_weights(logits, blank, VECTORS, slope=slope, embedding=kind)
    assert found.shape == (6, WIDTH)
    expected = omega_by_loops(logits.numpy(), blank.numpy(), slope, kind)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("slope", ["stable", "official", "norm"])
def test_one_blank_row_is_the_same_as_b_equal_ones(slope: Any) -> None:
    logits, blank = normal(7, CLASSES, seed=1), normal(1, CLASSES, seed=2)
    one = semantic_weights(logits, blank, VECTORS, slope=slope)
    many = semantic_weights(logits, blank.repeat(7, 1), VECTORS, slope=slope)
    torch.testing.assert_close(one, many, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("slope", ["stable", "official", "norm"])
@pytest.mark.parametrize("case", ["huge", "equal samples", "the blank class", "zero vectors", "cancelling vectors"])
def test_weights_are_finite_at_the_extremes(slope: Any, case: str) -> None:
    logits, blank, vectors = normal(4, CLASSES, seed=1).float(), normal(1, CLASSES, seed=2).float(), VECTORS.float()
    if case == "huge":
        logits, blank = logits.sign() * 1e4, blank.sign() * 1e4
    elif case == "equal samples":
        logits = logits[:1].repeat(4, 1)
    elif case == "the blank class":
        logits = blank.repeat(4, 1)
    elif case == "zero vectors":
        vectors = vectors * 0
    else:  # QF of two equally near samples with opposite vectors: exactly 0
        logits, vectors = torch.zeros(4, CLASSES), torch.cat([vectors[:2], -vectors[:2], vectors[4:] * 1e-40])
    found = semantic_weights(logits, blank, vectors, slope=slope)
    assert torch.isfinite(found).all()
    if case in ("the blank class", "zero vectors"):
        assert found.abs().max() < 1e-4


def test_far_samples_have_a_graph_of_their_own() -> None:
    """Logits 1e4 apart: W underflows to the identity, omega = (F - F_a) / F."""
    logits = torch.eye(CLASSES)[:3] * 1e4
    found = semantic_weights(logits, torch.eye(CLASSES)[4:], VECTORS.float(), slope="norm")
    change = torch.linalg.vector_norm(VECTORS[:3] - VECTORS[4], dim=1) / torch.linalg.vector_norm(VECTORS[:3], dim=1)
    torch.testing.assert_close(found[:, 0].double(), change, rtol=1e-6, atol=0)


# ----------------------------------------------------------------------------------------------------- maps


def test_a_map_by_hand() -> None:
    feature = torch.tensor([[[[1.0, 2.0]], [[10.0, 0.0]]]])  # channels (1, 2) and (10, 0)
    omega = torch.tensor([[2.0, 4.0, -1.0, 0.0]])
    assert semantic_map(feature, omega).tolist() == [[[1.25 * 11, 1.25 * 2]]]
    assert semantic_map(feature, omega, weighting="channel").tolist() == [[[0.0, 6.0]]]  # weights 3 and -1/2


@pytest.mark.parametrize("weighting", ["scalar", "channel"])
@pytest.mark.parametrize("channels", [3, 7, 11])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_agree_with_loops(weighting: Any, channels: int, layout: torch.memory_format) -> None:
    feature, omega = normal(3, channels, 4, 2), normal(3, WIDTH, seed=1)
    found = semantic_map(feature.to(memory_format=layout), omega, weighting=weighting)
    expected = map_by_loops(feature.numpy(), omega.numpy(), weighting)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)
    assert (expected > 0).any()


def test_a_scalar_weight_leaves_nothing_but_its_sign_in_a_scaled_map() -> None:
    logits, blank = normal(4, CLASSES, seed=1), normal(1, CLASSES, seed=2)
    student, teacher = positive(4, 3, 2, 2), positive(4, 3, 2, 2, seed=1)
    plain = map_distance([student.sum(1)], [teacher.sum(1)]).item()
    for vectors in (VECTORS, normal(CLASSES, 300, seed=5)):
        found = gsdm([student], [teacher], logits, blank, logits, blank, vectors, slope="norm")
        assert found.item() == pytest.approx(plain, rel=1e-9)
    assert semantic_map(student, -torch.ones(4, 2)).max() == 0


def test_distance_by_hand() -> None:
    """Unit maps (3, 4) / 5 and (0, 1): 0.36 + 0.04; the second sample is equal."""
    student = torch.tensor([[[3.0, 4.0]], [[1.0, 1.0]]])
    teacher = torch.tensor([[[0.0, 7.0]], [[2.0, 2.0]]])
    assert map_distance([student], [teacher]).item() == pytest.approx(0.4 / 2)
    assert map_distance([student], [teacher], reduction="mean").item() == pytest.approx(0.4 / 4)
    assert map_distance([student, student], [teacher, student]).item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ([[0.0, 1.0]], [[0.0, 0.25, 0.75, 1.0]]),  # half-pixel centres
        ([[1.0, 3.0, 0.0, 0.0, 5.0, 5.0, 2.0, 4.0]], [[2.0, 0.0, 5.0, 3.0]]),
        ([[2.0, 0.0, 5.0, 3.0], [0.0, 2.0, 1.0, 3.0]], [[1.0, 1.0, 3.0, 3.0]]),
    ],
)
def test_a_teachers_map_is_brought_to_the_students_size(
    teacher: list[list[float]], expected: list[list[float]]
) -> None:
    student = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    found = map_distance([student], [torch.tensor([teacher])]).item()
    s, t = scaled(student[0].numpy()), scaled(np.array(expected))
    assert found == pytest.approx(float(np.sum((s - t) ** 2)), rel=1e-5)


def test_an_empty_map_is_a_constant_without_gradient() -> None:
    zero, one = torch.zeros(2, 2, 2), positive(2, 2, 2).float()
    for student, teacher, expected in ((zero, one, 1.0), (one, zero, 1.0), (zero, zero, 0.0)):
        leaf = student.clone().requires_grad_()
        loss = map_distance([leaf], [teacher])
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-6)
        assert leaf.grad is not None
        assert leaf.grad.abs().max() < 1e-6


# ----------------------------------------------------------------------------------------------------- loss


def inputs(batch: int = 4, blank: int = 1) -> dict[str, Any]:
    """Two pairs: a teacher of the student's size with other channels, and one twice as large."""
    return {
        "student_features": [positive(batch, 3, 2, 3, seed=1), positive(batch, 9, 2, 2, seed=2)],
        "teacher_features": [positive(batch, 5, 2, 3, seed=3), positive(batch, 4, 4, 4, seed=4)],
        "student_logits": normal(batch, CLASSES, seed=5),
        "student_ablated": normal(blank, CLASSES, seed=6),
        "teacher_logits": normal(batch, CLASSES, seed=7) * 3,
        "teacher_ablated": normal(blank, CLASSES, seed=8),
        "class_vectors": VECTORS,
    }


def tensors(given: dict[str, Any]) -> list[Tensor]:
    return [t for value in given.values() for t in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize("slope", ["stable", "official", "norm"])
@pytest.mark.parametrize("weighting", ["scalar", "channel"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_agrees_with_loops(slope: Any, weighting: Any, reduction: Any) -> None:
    given = inputs(blank=4)
    terms = []
    for i in range(2):
        maps = {}
        for who in ("student", "teacher"):
            omega = omega_by_loops(given[f"{who}_logits"].numpy(), given[f"{who}_ablated"].numpy(), slope, "hard")
            maps[who] = map_by_loops(given[f"{who}_features"][i].numpy(), omega, weighting)
        target = halved(maps["teacher"]) if i == 1 else maps["teacher"]
        pairs = zip(maps["student"], target, strict=True)
        squared = np.stack([(scaled(t) - scaled(s)) ** 2 for s, t in pairs])
        terms.append(squared.sum() / 4 if reduction == "sum" else squared.mean())
    found = gsdm(**given, slope=slope, weighting=weighting, reduction=reduction)
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-9)
    assert 0 < found.item() <= 2


def test_the_student_s_maps_serve_several_teachers() -> None:
    given = inputs()
    student = semantic_maps(
        given["student_features"], given["student_logits"], given["student_ablated"], VECTORS, weighting="channel"
    )
    teacher = semantic_maps(
        given["teacher_features"], given["teacher_logits"], given["teacher_ablated"], VECTORS, weighting="channel"
    )
    assert map_distance(student, teacher).item() == gsdm(**given, weighting="channel").item()


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["scalar", "channel"])
@pytest.mark.parametrize("slope", ["stable", "official", "norm"])
def test_gradients_are_right_and_reach_the_student_s_features_only(weighting: Any, slope: Any) -> None:
    given = inputs()
    for tensor in tensors(given):
        tensor.requires_grad_()
    try:
        loss = gsdm(**given, weighting=weighting, slope=slope, embedding="soft")
        loss.backward()
        for feature in given["student_features"]:
            assert feature.grad is not None
            assert feature.grad.norm() > 1e-3
        features = {id(f) for f in given["student_features"]}
        assert all(t.grad is None for t in tensors(given) if id(t) not in features)

        def of(*student: Tensor) -> Tensor:
            return gsdm(**{**given, "student_features": list(student)}, weighting=weighting, slope=slope)

        assert torch.autograd.gradcheck(of, tuple(given["student_features"]))
    finally:
        VECTORS.requires_grad_(False).grad = None


def test_each_part_keeps_its_constants_out_of_the_gradient() -> None:
    logits, blank, vectors = (t.requires_grad_() for t in (normal(4, 5), normal(1, 5), normal(5, WIDTH, seed=1)))
    assert not semantic_weights(logits, blank, vectors, embedding="soft").requires_grad
    feature, omega = positive(4, 3, 2, 2).requires_grad_(), positive(4, WIDTH).requires_grad_()
    for weighting in _WEIGHTINGS:
        semantic_map(feature, omega, weighting=weighting).sum().backward()
    assert feature.grad is not None
    assert feature.grad.min() > 0
    assert omega.grad is None
    student, teacher = positive(4, 2, 2).requires_grad_(), positive(4, 2, 2, seed=1).requires_grad_()
    map_distance([student], [teacher]).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


def test_a_step_against_the_gradient_brings_the_maps_together() -> None:
    given = inputs()
    options: dict[str, Any] = {"slope": "norm"}
    leaves = [f.requires_grad_() for f in given["student_features"]]
    before = gsdm(**given, **options)
    before.backward()
    given["student_features"] = [f.detach() - 5 * f.grad for f in leaves if f.grad is not None]
    assert gsdm(**given, **options).item() < 0.9 * before.item()


def test_samples_stay_with_their_teacher() -> None:
    given, order = inputs(), torch.tensor([2, 0, 3, 1])
    moved = {
        name: [f[order] for f in value] if isinstance(value, list) else value[order] if len(value) == 4 else value
        for name, value in given.items()
    }
    assert gsdm(**moved).item() == pytest.approx(gsdm(**given).item(), rel=1e-12)
    moved["teacher_features"] = given["teacher_features"]
    assert gsdm(**moved, slope="norm").item() != pytest.approx(gsdm(**given, slope="norm").item(), rel=1e-3)


def test_a_batch_of_one_has_a_graph_of_one() -> None:
    given = inputs(batch=1)
    assert gsdm(**given, slope="norm", weighting="channel").item() > 0
    plain = [[f.sum(1) for f in given[f"{who}_features"]] for who in ("student", "teacher")]
    assert gsdm(**given, slope="norm").item() == pytest.approx(map_distance(*plain).item(), rel=1e-9)


@pytest.mark.parametrize("weighting", ["scalar", "channel"])
@pytest.mark.parametrize("slope", ["stable", "official", "norm"])
@pytest.mark.parametrize("case", ["huge", "huge logits", "zero", "tiny", "equal samples", "equal networks", "one dead"])
def test_values_and_gradients_are_finite_at_the_extremes(weighting: Any, slope: Any, case: str) -> None:
    given = inputs()
    student, teacher = given["student_features"], given["teacher_features"]
    if case == "huge":
        given |= {"student_features": [f * 1e4 for f in student], "teacher_features": [-f * 1e4 for f in teacher]}
    elif case == "huge logits":
        given |= {name: given[name].sign() * 1e4 for name in given if name.endswith(("logits", "ablated"))}
    elif case in ("zero", "tiny"):
        given["student_features"] = [f * (0 if case == "zero" else 1e-20) for f in student]
    elif case == "equal samples":
        given |= {
            "student_features": [f[:1].repeat(4, 1, 1, 1) for f in student],
            "student_logits": given["student_logits"][:1].repeat(4, 1),
        }
    elif case == "equal networks":
        given |= {"teacher_features": student, "teacher_logits": given["student_logits"]}
        given |= {"teacher_ablated": given["student_ablated"]}
    else:
        student[0][2] = 0
    given = {k: [f.float() for f in v] if isinstance(v, list) else v.float() for k, v in given.items()}
    leaves = [f.clone().requires_grad_() for f in given["student_features"]]
    loss = gsdm(**{**given, "student_features": leaves}, weighting=weighting, slope=slope)
    loss.backward()
    assert 0 <= loss.item() <= 2.0001
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() < 1e5
    if case == "equal networks":
        assert loss.item() < 1e-10


def test_bfloat16_is_compared_in_float32() -> None:
    given = inputs()
    low: dict[str, Any] = {
        k: [f.bfloat16() for f in v] if isinstance(v, list) else v.bfloat16() for k, v in given.items()
    }
    same: dict[str, Any] = {k: [f.float() for f in v] if isinstance(v, list) else v.float() for k, v in low.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for weighting in _WEIGHTINGS:
            lowered = gsdm(**low, weighting=weighting)
            with torch.autocast("cpu", enabled=False):
                plain = gsdm(**same, weighting=weighting)
            assert lowered.dtype is torch.float32
            assert lowered.item() == plain.item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_features": []}, "0 student and 2 teacher taps"),
        ({"teacher_features": [torch.ones(4, 5, 2, 3)]}, "2 student and 1 teacher taps"),
        ({"teacher_features": [torch.ones(3, 5, 2, 3)] * 2}, r"\(4, 3, 2, 3\) and teacher features \(3, 5, 2, 3\)"),
        ({"teacher_features": [torch.ones(4, 5, 2)] * 2}, r"a map \(4, 5, 2\) and weights \(4, 7\)"),
        ({"student_logits": torch.ones(3, CLASSES)}, r"a map \(4, 3, 2, 3\) and weights \(3, 7\)"),
        ({"student_ablated": torch.ones(3, CLASSES)}, r"logits \(4, 5\) and ablated logits \(3, 5\).*\(1, K\)"),
        ({"teacher_ablated": torch.ones(CLASSES)}, r"ablated logits \(5,\)"),
        ({"teacher_ablated": torch.ones(1, 6)}, r"logits of 5 and 6 classes"),
        ({"class_vectors": torch.ones(6, WIDTH)}, r"logits of 5 classes, class vectors \(6, 7\).*labels of this run"),
        ({"class_vectors": torch.ones(5)}, r"class vectors \(5,\)"),
        ({"slope": "ofical"}, "slope='ofical'.*did you mean 'official'"),
        ({"embedding": "Hard"}, "embedding='Hard'"),
        ({"weighting": "channels"}, "did you mean 'channel'"),
        ({"reduction": "men"}, "did you mean 'mean'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        gsdm(**(inputs() | change))
