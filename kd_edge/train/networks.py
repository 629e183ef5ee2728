"""The networks of a run: built from the recipe, with initial or trained weights."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kd_edge.data import Wearables
from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel, build_model
from kd_edge.models.backbones import local_state, start_from_motion
from kd_edge.preprocess import Preprocess
from kd_edge.train.distil import Learner, teach
from kd_edge.train.material import Material
from kd_edge.train.recipe import Recipe, SensorTeacherConfig, Stage
from kd_edge.train.run import RECIPE, SUMMARY, TEACHER, Run, load_recipe
from kd_edge.train.sensors import SensorLearner, SensorTeacher
from kd_edge.train.terms import Teacher

_SETTINGS = "sensor_teacher"
"""Key of a weights file's metadata."""


def build(material: Material, name: str) -> ClipModel:
    """An image stage's model with its initial weights; the same for the same seed."""
    stage, recipe = material.stage(name), material.recipe
    assert not isinstance(stage, SensorTeacherConfig)
    torch.manual_seed(_seed(recipe, name))
    classes = len(material.dataset.labels)
    channels = stage.preprocess.input_channels
    model = build_model(stage.model, channels, classes, recipe.segments, stage.initial_weights)
    if stage.preprocess.has_motion and stage.initial_weights is None:
        start_from_motion(model.backbone, stage.preprocess.channels)
    return model


def build_teacher(material: Material) -> Teacher:
    """The recipe's teacher with its initial weights; the same for the same seed."""
    config = material.recipe.teacher
    if not isinstance(config, SensorTeacherConfig):
        return build(material, "teacher")
    torch.manual_seed(_seed(material.recipe, "teacher"))
    dataset = material.dataset
    assert isinstance(dataset, Wearables)
    formats = [dataset.signal_format(sensor) for sensor in config.sensors]
    return SensorTeacher(config, formats, len(dataset.labels))


def _seed(recipe: Recipe, name: str) -> int:
    return zlib.crc32(f"{recipe.seed} {name} 0".encode())


def teacher_learner(material: Material, teacher: Teacher) -> Learner | SensorLearner:
    """What trains a teacher: labels alone, and class names for sensors."""
    config = material.recipe.teacher
    assert config is not None
    if isinstance(teacher, SensorTeacher):
        assert isinstance(config, SensorTeacherConfig)
        return SensorLearner(teacher, material.class_vectors if config.semantic_weight else None, config)
    return Learner(teacher, label_smoothing=config.label_smoothing)


def student_learner(material: Material, student: ClipModel, teacher: Teacher | None) -> Learner:
    """What trains a student: labels, and the recipe's losses where there is a teacher."""
    recipe, stage = material.recipe, material.recipe.student
    return Learner(
        student,
        recipe.losses if teacher is not None else (),
        teacher,
        recipe.clip_shapes,
        stage.label_smoothing,
        stage.epochs,
        class_vectors=material.class_vectors,
        black=_black(stage.preprocess),
    )


def _black(spec: Preprocess) -> Tensor:
    """A black pixel as the network sees it, (C,)."""
    mean, std = (torch.tensor(values).expand(spec.input_channels) for values in (spec.mean, spec.std))
    return -mean / std


def teacher_weights(given: Path) -> Path:
    """The file of a recipe's ``teacher.weights``: itself, or the teacher of a run directory."""
    return given / TEACHER if given.is_dir() else given


def check_given(material: Material) -> None:
    """Refuse a recipe's ``teacher.weights`` that fit its network but were trained for something else.

    Raises:
        TrainingError: Of other classes; of sensors, signals or networks of sensors that differ.
    """
    config = material.recipe.teacher
    assert config is not None
    assert config.weights is not None
    check_classes(config.weights, material.dataset.labels)
    if isinstance(config, SensorTeacherConfig):
        check_sensors(config.weights, config)


def check_classes(given: Path, labels: Sequence[str]) -> None:
    """Refuse the teacher of a run that knows other classes, as many as they may be.

    Raises:
        TrainingError: The run's class names differ.
    """
    if not (given / SUMMARY).is_file():
        return
    known = Run.load(given).summary.get("student_model", {}).get("labels", list(labels))
    if known != list(labels):
        other = next((pair for pair in zip_longest(known, labels) if pair[0] != pair[1]), ("", ""))
        raise TrainingError(
            f"the teacher of {given} knows {len(known)} classes, the recipe has {len(labels)} "
            f"(the first that differs: '{other[0]}' and '{other[1]}')",
            "a teacher of the same classes in the same order",
            "train a teacher on this data set, or correct teacher.weights",
        )


def check_sensors(given: Path, config: SensorTeacherConfig) -> None:
    """Refuse a sensor teacher that saw its signals otherwise, where its run or its file says how it did.

    Raises:
        TrainingError: Names the first setting that differs.
    """
    trained, wanted = _trained_with(given), sensor_settings(config)
    for name, value in wanted.items():
        if trained.get(name, value) != value:
            raise TrainingError(
                f"the teacher of {given} was trained with teacher.{name} = {json.dumps(trained[name])}, "
                f"the recipe has {json.dumps(value)}",
                "the same",
                f"correct teacher.{name}, or remove teacher.weights to train the teacher",
            )


def sensor_settings(config: SensorTeacherConfig) -> dict[str, Any]:
    """What a sensor teacher's weights hold for, setting by setting; how it was trained to them is not asked."""
    values = config.model_dump(mode="json")
    own = {name: values[name] for name in ("sensors", "points", "scaling", "interval", "ranges")}
    return own | {f"model.{name}": value for name, value in values["model"].items() if name != "similarity"}


def weights_metadata(config: Stage | None) -> dict[str, str] | None:
    """What a teacher's file says beside its weights, for ``check_sensors``; nothing of one that sees images."""
    if not isinstance(config, SensorTeacherConfig):
        return None
    return {_SETTINGS: json.dumps(sensor_settings(config))}


def _trained_with(given: Path) -> dict[str, Any]:
    """Settings of a trained sensor teacher, from the recipe of its run or from its file; empty where neither tells."""
    if (given / RECIPE).is_file():
        teacher = load_recipe(given).teacher
        return sensor_settings(teacher) if isinstance(teacher, SensorTeacherConfig) else {}
    path = teacher_weights(given)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {}).get(_SETTINGS, "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}  # what is wrong with the file is told when its weights are loaded
    return found if isinstance(found, dict) else {}


def load_trained(model: Teacher, path: Path) -> None:
    """Load the weights of a trained teacher.

    Raises:
        TrainingError: Unreadable, or of another network.
    """
    try:
        model.load_state_dict(local_state(path))
    except RuntimeError as error:
        raise TrainingError(
            f"weights {path} do not fit the teacher ({str(error).splitlines()[1].strip()})",
            "weights trained with the same [teacher.model], preprocess, classes and segments",
            "correct teacher.weights, or remove it to train the teacher",
        ) from error


def rehearse_losses(material: Material) -> None:
    """Show both networks two empty clips, so that a layer that does not fit stops a run before its teacher is trained.

    Raises:
        TrainingError: What a loss says of the layers it looks at.
    """
    recipe = material.recipe
    if recipe.clip_shapes is None:
        return
    student, teacher = build(material, "student"), build_teacher(material)
    teacher_learner(material, teacher)  # class vectors must fit
    learner = student_learner(material, student, teacher).eval()
    mine, theirs = (torch.zeros(2, *shape) for shape in recipe.clip_shapes)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two equal clips have no graph
        learner(mine, torch.tensor([0, 1]), teach(teacher, theirs, learner.teacher_taps, ablate=learner.ablates))
