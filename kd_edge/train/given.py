"""Trained teachers that are given: whether they fit, and their weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from kd_edge.errors import TrainingError
from kd_edge.models.weights import load_whole, local_state
from kd_edge.rundir import RECIPE, STUDENT, SUMMARY, TEACHER
from kd_edge.train.inputs.embeddings import open_encoder
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig, TrainedTeacher
from kd_edge.train.results.run import Run, load_recipe

_SETTINGS = "sensor_teacher"
"""Key of a weights file's metadata."""
_FIX = "correct teacher.weights, or remove it to train the teacher"


def teacher_weights(given: Path) -> Path:
    """The file of a recipe's ``teacher.weights``: itself, or a run's teacher, or its student where it had none."""
    if not given.is_dir():
        return given
    if (given / TEACHER).exists() or ((given / RECIPE).is_file() and not (given / STUDENT).is_file()):
        return given / TEACHER
    return given / STUDENT if (given / STUDENT).is_file() else given


def check_readable(recipe: Recipe) -> None:
    """Refuse files of weights that cannot be read, before recordings are decoded for them.

    Raises:
        TrainingError: Names the first one.
    """
    for name, stage in recipe.networks.items():
        if isinstance(stage, OnnxTeacherConfig):
            open_encoder(stage)
        elif stage.weights is not None:
            local_state(teacher_weights(stage.weights), _FIX)
        start = None if stage.images is None or stage.weights is not None else stage.images.initial_weights
        if start not in (None, "imagenet"):
            local_state(Path(start), f"correct {name}.initial_weights, or remove it")


def take_weights(model: nn.Module, given: Path, config: TrainedTeacher, labels: Sequence[str]) -> None:
    """Load a recipe's ``teacher.weights`` into its network.

    Args:
        model: The teacher.
        given: A file of weights, or a run directory.
        config: The recipe's ``[teacher]``.
        labels: Its class names.

    Raises:
        TrainingError: Unreadable, of another network, or trained for something else: other classes, or sensors, signals
            or networks of sensors that differ.
    """
    check_classes(given, labels)
    check_settings(given, config)
    load_trained(model, teacher_weights(given))


def check_classes(given: Path, labels: Sequence[str]) -> None:
    """Refuse the teacher of a run that knows other classes, as many as they may be.

    Raises:
        TrainingError: The run's class names differ.
    """
    if not (given / SUMMARY).exists():
        return
    known = Run.load(given).summary.student_model.get("labels", list(labels))
    if known != list(labels):
        other = next((pair for pair in zip_longest(known, labels) if pair[0] != pair[1]), ("", ""))
        raise TrainingError(
            f"the teacher of {given} knows {len(known)} classes, the recipe has {len(labels)} "
            f"(the first that differs: '{other[0]}' and '{other[1]}')",
            "a teacher of the same classes in the same order",
            "train a teacher on this data set, or correct teacher.weights",
        )


def check_settings(given: Path, config: TrainedTeacher) -> None:
    """Refuse a teacher that saw its signals otherwise, where its run or its file says how it did.

    Raises:
        TrainingError: Names the first setting that differs.
    """
    trained, wanted = _trained_with(given), config.trained_for
    for name, value in wanted.items():
        if trained.get(name, value) != value:
            raise TrainingError(
                f"the teacher of {given} was trained with teacher.{name} = {json.dumps(trained[name])}, "
                f"the recipe has {json.dumps(value)}",
                "the same",
                f"correct teacher.{name}, or remove teacher.weights to train the teacher",
            )


def weights_metadata(config: TrainedTeacher) -> dict[str, str] | None:
    """What a teacher's file says beside its weights, for ``check_settings``; nothing where the network says it all."""
    return {_SETTINGS: json.dumps(config.trained_for)} if config.trained_for else None


def _trained_with(given: Path) -> dict[str, Any]:
    """Settings of a trained teacher, from the recipe of its run or from its file; empty where neither tells."""
    if (given / RECIPE).is_file():
        teacher = load_recipe(given).teacher
        return {} if teacher is None else teacher.trained_for
    path = teacher_weights(given)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {}).get(_SETTINGS, "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}  # what is wrong with the file is told when its weights are loaded
    return found if isinstance(found, dict) else {}


def load_trained(model: nn.Module, path: Path, fix: str = _FIX) -> None:
    """Load the weights of a trained teacher.

    Args:
        model: To load them into.
        path: Their file.
        fix: What to do when it is unreadable, or of another network.

    Raises:
        TrainingError: It is.
    """
    fault = load_whole(model, local_state(path, fix), "teacher")
    if fault:
        raise TrainingError(
            f"weights {path} do not fit the teacher ({fault})",
            "weights trained with the same [teacher.model], preprocess, classes and segments",
            fix,
        )
