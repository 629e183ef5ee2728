"""One table of behaviours for every kind of teacher, and a kind that is not in the house."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import torch
from torch import Tensor

from kd_edge.data import open_dataset
from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.models.layers import Layer
from kd_edge.train.distil.learner import Learner, teach
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.networks import TEACHERS
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import AnyTeacher, SensorTeacherConfig, TeacherConfig
from kd_edge.train.results.run import Run
from kd_edge.train.teachers.base import Observation, Places, Shape, Tap, Teacher
from kd_edge.train.trainer import train
from tests.runs import tiny_values

IMAGES = {
    "modality": "rgb",
    "model": {"backbone": "tiny", "temporal": "tconv", "hidden": 8},
    "preprocess": {"channels": 3, "resize_px": 36, "input_px": 32},
}
SENSORS = {
    "kind": "sensors",
    "sensors": ["accelerometer", "gyroscope"],
    "points": 32,
    "model": {"network": "conv1d", "width": 6},
}
KINDS = {"images": TeacherConfig.model_validate(IMAGES), "sensors": SensorTeacherConfig.model_validate(SENSORS)}
CLASSES, SEGMENTS = 10, 4


def teacher(kind: str) -> Teacher:
    torch.manual_seed(0)
    dataset = open_dataset(Recipe.model_validate(tiny_values()).data)
    return TEACHERS[kind].build(KINDS[kind], SEGMENTS, CLASSES, dataset).eval()


def inputs(kind: str, count: int = 3) -> Tensor:
    return torch.randn(count, *KINDS[kind].clip_shape(SEGMENTS), generator=torch.Generator().manual_seed(1))


def test_every_kind_of_settings_has_its_networks() -> None:
    union, _ = get_args(AnyTeacher)
    configs = [get_args(one)[0] if get_origin(one) is Annotated else one for one in get_args(union)]
    assert {config.model_fields["kind"].default for config in configs} == set(TEACHERS)
    assert set(TEACHERS) == {*KINDS, "onnx"}  # which has no network: test_onnx.py


@pytest.mark.parametrize(("kind", "count", "segments"), [("images", 1, True), ("sensors", 2, False)])
def test_observations(kind: str, count: int, segments: bool) -> None:
    model = teacher(kind)
    taps = [Tap(model.places.stages[0], "mean"), Tap(model.places.feature, "mean")]
    seen = teach(model, inputs(kind), taps)
    assert (model.count, model.has_segments, model.attends) == (count, segments, False)
    assert len(seen) == count
    for one in seen:
        assert one.logits.shape == (3, CLASSES)
        assert tuple(one.taps) == tuple(taps)
        assert [len(values) for values in one.taps.values()] == [3, 3]
        assert one.ablated is None
        assert not one.logits.requires_grad
    blank = teach(model, inputs(kind), (), ablate=True)
    assert [one.of_blank.shape for one in blank] == [(1, CLASSES)] * count
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(seen, blank, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_places_are_layers_and_others_are_refused(kind: str) -> None:
    model = teacher(kind)
    layers = {layer.path: layer.shape for layer in model.layers(KINDS[kind].clip_shape(SEGMENTS))}
    places = model.places
    named = {*places.stages, *places.blocks, places.feature, places.semantic}
    assert named <= layers.keys()
    assert (len(places.stages), len(places.blocks)) == (4, 5)
    for path in named:
        places.check(path)
    with pytest.raises(TrainingError, match="no layer 'nowhere'"):
        places.check("nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_network_without_recordings(kind: str) -> None:
    listed = TEACHERS[kind].build(KINDS[kind], SEGMENTS, CLASSES, None)
    assert list(listed.state_dict()) == list(teacher(kind).state_dict())


@pytest.mark.parametrize(("kind", "losses"), [("images", {"ce", "total"}), ("sensors", {"ce", "semantic", "total"})])
def test_a_learner_of_its_own(kind: str, losses: set[str]) -> None:
    model = teacher(kind)
    learner = model.learner(KINDS[kind], torch.randn(CLASSES, 6))
    values, logits = learner.train()(inputs(kind), torch.tensor([0, 4, 9]))
    assert set(values) == losses
    assert logits.shape == (3, CLASSES)
    assert (learner.weights(1), learner.teacher_taps, learner.ablates) == ({}, (), False)
    assert list(learner.state_dict()) == [f"model.{name}" for name in model.state_dict()]
    values["total"].backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


NAMES = [
    *(
        f"backbone.layer{k}.{part}"
        for k in (1, 2, 3, 4)
        for part in (
            "0.weight",
            "1.weight",
            "1.bias",
            "1.running_mean",
            "1.running_var",
            "1.num_batches_tracked",
        )
    ),
    *(
        f"head.{part}"
        for k in (1, 2)
        for part in (
            f"convolution{k}.weight",
            f"norm{k}.weight",
            f"norm{k}.bias",
            f"norm{k}.running_mean",
            f"norm{k}.running_var",
            f"norm{k}.num_batches_tracked",
        )
    ),
    "head.classifier.weight",
    "head.classifier.bias",
]


def test_the_weights_of_an_image_teacher_are_named_as_the_clip_models() -> None:
    assert list(teacher("images").state_dict()) == NAMES
    assert list(build_model(KINDS["images"].model, 3, CLASSES, SEGMENTS).state_dict()) == NAMES


def test_the_weights_of_sensors_are_named_by_network_and_fusion() -> None:
    names = list(teacher("sensors").state_dict())
    assert len(names) == 264
    assert {name.split(".")[0] for name in names} == {"networks"}
    assert {".".join(name.split(".")[1:3]) for name in names} == {
        "networks.0",
        "networks.1",
        *(f"fusions.{place}" for place in ("block1", "block2", "block3", "block4", "block5", "fc1", "fc2")),
    }
    for name in (
        "networks.networks.1.block1.0.weight",
        "networks.networks.0.fc1.1.weight",
        "networks.networks.1.head.bias",
        "networks.fusions.fc2.summation.second.1.bias",
    ):
        assert name in names


def test_the_names_of_what_a_student_is_trained_with() -> None:
    student = build_model(ModelConfig(backbone="tiny", temporal="tconv", hidden=8), 1, CLASSES, SEGMENTS)
    values = tiny_values(losses=[{"kind": "mgcam"}, {"kind": "ccskd"}, {"kind": "cc", "variant": "delta"}])
    values["losses"] += [{"kind": "fitnet"}, {"kind": "fitnet"}, {"kind": "semantic"}]
    losses = Recipe.model_validate(values).losses
    learner = Learner(student, losses, teacher("sensors"), ((4, 1, 32, 32), (2, 3, 32)))
    names = [name for name in learner.state_dict() if not name.startswith("model.")]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert names == [
        *(f"terms.mgcam.adapters.{m}.projections.{k}_{k}.weight" for m in (0, 1) for k in range(4)),
        *(
            name
            for m in (0, 1)
            for name in (
                *(f"terms.ccskd.adapters.{m}.convolutions.{k}.weight" for k in range(4)),
                *(f"terms.ccskd.adapters.{m}.norms.{k}.{part}" for k in range(4) for part in norm),
            )
        ),
        *(
            f"terms.cc.adapters.{m}.{side}.{part}"
            for m in (0, 1)
            for side in ("student", "teacher")
            for part in ("weight", "bias")
        ),
        *(
            f"terms.{term}.adapters.{m}.{part}"
            for term in ("fitnet", "fitnet_2")
            for m in (0, 1)
            for part in ("convolution.weight", *(f"norm.{each}" for each in norm))
        ),
        *(f"terms.semantic.adapters.{m}.1.{part}" for m in (0, 1) for part in ("weight", "bias")),
    ]
    assert [name for name in learner.state_dict() if name.startswith("model.")] == [f"model.{name}" for name in NAMES]


def test_figures_that_only_sensors_have() -> None:
    assert teacher("images").evaluate([], ["a"], torch.device("cpu")) == {}
    values = tiny_values(teacher=SENSORS | {"semantic_weight": 0}, losses=[{"kind": "soft_target"}])
    material = gather_material(Recipe.model_validate(values))
    model = teacher("sensors")
    loader = material.evaluation_loader("teacher", material.test)
    found = model.evaluate(loader, material.dataset.labels, torch.device("cpu"))
    with torch.no_grad():
        batches = [(model.look(batch["inputs"][0])[0], batch["labels"]) for batch in loader]
    right = sum(int((output.logits[:, 1].argmax(dim=1) == labels).sum()) for output, labels in batches)
    assert found["sensors"]["gyroscope"].clips == 10
    assert found["sensors"]["gyroscope"].accuracy == pytest.approx(right / 10)
    assert found["similarity"]["running"]["gyroscope"] == pytest.approx(right / 10)
    assert list(found["similarity"]) == ["identity", "batch", "running"]


class Oracle(Teacher):
    """A teacher from elsewhere, as of a file: two fixed answers, no layers, nothing to train."""

    count = 2
    has_segments = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("answers", torch.eye(CLASSES)[:2] * 5)

    @classmethod
    def build(cls, config: Any, segments: int, classes: int, dataset: Any) -> Oracle:
        return cls()

    @property
    def places(self) -> Places:
        return Places((), (), "", "", lambda path: None)

    def layers(self, shape: Shape) -> list[Layer]:
        return []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.get_buffer("answers").mean(dim=0).expand(len(inputs), -1)

    def observe(self, inputs: Tensor, taps: Collection[Tap], *, ablate: bool = False) -> tuple[Observation, ...]:
        return tuple(Observation(answer.expand(len(inputs), -1), {}) for answer in self.get_buffer("answers"))


def test_another_kind_is_one_class_and_a_line_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEACHERS, "images", Oracle)
    given = tmp_path / "oracle.pt"
    torch.save(Oracle().state_dict(), given)
    values = tiny_values(losses=[{"kind": "soft_target"}, {"kind": "dkd"}])
    values["teacher"]["weights"] = str(given)
    list(train(Recipe.model_validate(values), tmp_path / "run", accelerator="cpu"))
    stages = Run.load(tmp_path / "run").summary.stages
    assert stages["teacher"].selected_by == f"weights {given}"
    assert stages["teacher"].test is not None
    assert stages["teacher"].test.accuracy == pytest.approx(0.1)  # one class of ten, always
    assert stages["student"].test_samples == 10
