from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from kd_edge.data import SignalFormat
from kd_edge.errors import TrainingError
from kd_edge.models.config import PLACES
from kd_edge.models.layers import Layer
from kd_edge.train.recipe.teacher_stages import SensorTeacherConfig
from kd_edge.train.teachers.base import Tap
from kd_edge.train.teachers.sensors import SensorLearner, SensorTeacher

FORMATS = [SignalFormat("g", (-8.0, 8.0), 50.0), SignalFormat("degree/s", (-1000.0, 1000.0), 50.0)]
WIDTH, CLASSES = 6, 4


def config(**changes: object) -> SensorTeacherConfig:
    values = {
        "sensors": ("accelerometer", "gyroscope"),
        "points": 32,
        "model": {"network": "conv1d", "width": WIDTH, "dropout": 0.0},
    }
    return SensorTeacherConfig.model_validate(values | changes)


def teacher(**changes: object) -> SensorTeacher:
    torch.manual_seed(0)
    return SensorTeacher(config(**changes), FORMATS, CLASSES)


def signals(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 2, 3, 32, generator=torch.Generator().manual_seed(1))


def test_each_axis_by_its_own_extremes() -> None:
    raw = torch.zeros(1, 2, 3, 32)
    raw[0, 0, 0] = torch.linspace(2, 4, 32)
    raw[0, 0, 1] = 7.0
    scaled, present = teacher().encode(raw)
    torch.testing.assert_close(scaled[0, 0, 0], torch.linspace(-1, 1, 32))
    assert (scaled[0, 0, 1] == 1).all()  # constant
    assert present.all()


def test_by_the_sensors_range_size_and_offset_stay() -> None:
    raw = torch.zeros(1, 2, 3, 32)
    raw[0, 0, 0], raw[0, 1, 0], raw[0, 0, 1] = 4.0, -500.0, 99.0
    scaled, _ = teacher(scaling="sensor").encode(raw)
    assert (scaled[0, 0, 0, 0], scaled[0, 1, 0, 0], scaled[0, 0, 1, 0]) == (0.5, -0.5, 1.0)
    narrower, _ = teacher(scaling="sensor", ranges={"accelerometer": [-4, 4]}).encode(raw)
    assert (narrower[0, 0, 0, 0], narrower[0, 1, 0, 0]) == (1.0, -0.5)


@pytest.mark.slow
def test_the_unit_interval_keeps_the_sign_of_a_field() -> None:
    raw = torch.zeros(1, 2, 3, 32)
    raw[0, 0, 0], raw[0, 0, 1] = 4.0, -4.0
    images = {"network": "resnet18", "width": WIDTH, "fusion": []}
    signed, _ = teacher(scaling="sensor", model=images).encode(raw)
    assert torch.equal(signed[0, 0, 0], signed[0, 0, 1])  # cos(2 phi) = cos(2 (pi - phi))
    unit, _ = teacher(scaling="sensor", interval="unit", model=images).encode(raw)
    assert unit[0, 0, 0, 0, 0] == pytest.approx(2 * 0.75**2 - 1)  # cos(2 arccos(3/4))
    assert unit[0, 0, 1, 0, 0] == pytest.approx(2 * 0.25**2 - 1)


def test_virtual_images_by_the_angles() -> None:
    images = teacher(model={"network": "resnet18", "width": WIDTH, "fusion": []})
    raw = signals(2)
    found, _ = images.encode(raw)
    assert found.shape == (2, 2, 3, 32, 32)
    axis = raw[1, 0, 2].double().numpy()
    phi = np.arccos(((axis - axis.max()) + (axis - axis.min())) / (axis.max() - axis.min()))
    np.testing.assert_allclose(found[1, 0, 2], np.cos(phi[:, None] + phi[None]), atol=1e-5)


def test_a_missing_sensor_is_empty_and_said_to_be_missing() -> None:
    raw = signals(3)
    raw[1, 0] = torch.nan
    scaled, present = teacher().encode(raw)
    assert present.tolist() == [[True, True], [False, True], [True, True]]
    assert (scaled[1, 0] == 0).all()
    assert torch.isfinite(scaled).all()
    seen = teacher().eval().observe(raw, [Tap("fc2", "mean")])
    assert seen[0].present is not None
    assert seen[0].present.tolist() == [True, False, True]
    assert seen[0].attention is not None
    assert seen[0].attention.tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize("network", ["conv1d", "resnet18"])
def test_what_the_networks_see_of_a_missing_sensor_is_zero_and_of_the_others_unchanged(network: str) -> None:
    model = teacher(model={"network": network, "width": WIDTH}, scaling="sensor")
    whole, raw = signals(3), signals(3)
    raw[1, 0] = raw[2, 1] = torch.nan
    full, there = model.encode(whole)
    found, present = model.encode(raw)
    assert there.all()
    assert present.tolist() == [[True, True], [False, True], [True, False]]
    assert torch.equal(found[present], full[present])
    assert not found[~present].any()
    assert full[~present].any()


@pytest.mark.parametrize(("points", "network"), [(33, "conv1d"), (1000, "conv1d"), (96, "vgg16"), (1024, "resnet18")])
def test_points_that_a_network_takes(points: int, network: str) -> None:
    assert config(points=points, model={"network": network}).points == points


def test_signals_of_another_shape() -> None:
    with pytest.raises(TrainingError, match="2 sensors, 3, 32 points"):
        teacher().encode(torch.zeros(1, 2, 3, 31))


def test_every_place_can_be_looked_at_and_others_are_named() -> None:
    model = teacher()
    layers = model.layers((2, 3, 32))
    assert tuple(layer.path for layer in layers) == PLACES
    assert layers[-1] == Layer("fc2", "sensor network", (1, WIDTH))
    assert model.training
    with pytest.raises(TrainingError, match="no layer 'block6' \\(did you mean 'block"):
        model.places.check("block6")


def test_the_teachers_loss_is_equation_20() -> None:
    model, labels = teacher(model={"network": "conv1d", "width": WIDTH, "dropout": 0.0, "fusion": []}).eval(), None
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    vectors = torch.randn(CLASSES, WIDTH)
    learner = SensorLearner(model, vectors, config(semantic_weight=0.5)).eval()
    values, logits = learner(signals(), labels)
    output, _ = model.look(signals())
    entropy = sum(F.cross_entropy(output.logits[:, k], labels) for k in range(2)) / 2
    semantic = sum(((output.stages["fc2"][k] - vectors[labels]) ** 2).mean() for k in range(2)) / 2
    torch.testing.assert_close(values["ce"], entropy)
    torch.testing.assert_close(values["semantic"], semantic)
    torch.testing.assert_close(values["total"], entropy + 0.5 * semantic)
    torch.testing.assert_close(logits, output.logits.mean(dim=1))


def test_a_sample_counts_for_the_sensors_it_has() -> None:
    model, labels = teacher(model={"network": "conv1d", "width": WIDTH, "fusion": []}).eval(), torch.arange(4)
    raw = signals(4)
    raw[3, 1] = torch.nan
    values, logits = SensorLearner(model, None, config()).eval()(raw, labels)
    output, _ = model.look(raw)
    one, other = F.cross_entropy(output.logits[:, 0], labels), F.cross_entropy(output.logits[:3, 1], labels[:3])
    torch.testing.assert_close(values["ce"], (one + other) / 2)
    torch.testing.assert_close(logits[3], output.logits[3, 0])


def test_attention_learns_from_what_the_sensors_say_together() -> None:
    attended = {"network": "conv1d", "width": WIDTH, "fusion": [], "attention": True}
    model = teacher(model=attended)
    values, together = SensorLearner(model, None, config(model=attended))(signals(4), torch.arange(4))
    torch.testing.assert_close(values["attention"], F.cross_entropy(together, torch.arange(4)))
    torch.testing.assert_close(values["total"], values["ce"] + values["attention"])
    values["total"].backward()
    scores = [p for name, p in model.networks.named_parameters() if "attention" in name]
    assert scores
    assert any(bool(p.grad.abs().sum() > 0) for p in scores if p.grad is not None)


def test_class_vectors_of_another_size() -> None:
    with pytest.raises(TrainingError, match="class vectors of 50 values for networks whose fc2 has 6") as caught:
        SensorLearner(teacher(), torch.zeros(CLASSES, 50), config())
    assert caught.value.fix == "set teacher.model.width=50"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensors": ["a", "a"]}, "names one twice"),
        ({"sensors": []}, "at least 1 item"),
        ({"ranges": {"magnetometer": [0, 1]}}, "ranges has 'magnetometer'"),
        ({"ranges": {"gyroscope": [1, 0]}}, "lower value first"),
        ({"batch_size": 1}, "at least 2"),
        ({"ranges": {"gyroscope": [0, 1]}}, "ranges say nothing with scaling = 'sample'"),
        ({"points": 31}, "points 31 do not fit network 'conv1d': set points to 32"),
        ({"points": 8, "model": {"network": "vgg16"}}, "points 8 do not fit network 'vgg16': set points to 32"),
        ({"points": 200, "model": {"network": "resnet18"}}, "'resnet18': set points to 224"),
    ],
)
def test_impossible_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("network", "black"), [("conv1d", torch.zeros(3, 2, 3, 32)), ("resnet18", -torch.ones(3, 2, 3, 32, 32))]
)
def test_the_ablated_input_is_one_black_image_for_all(network: str, black: torch.Tensor) -> None:
    model = teacher(model={"network": network, "width": WIDTH}).eval()
    seen = model.observe(signals(5), [], ablate=True)
    black = model.networks(black, None)
    for k in range(2):
        assert seen[k].ablated is not None
        assert seen[k].ablated.shape == (1, CLASSES)
        torch.testing.assert_close(black.logits[2, k], seen[k].ablated[0])
