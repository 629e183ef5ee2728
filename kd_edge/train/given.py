"""Teachers given as trained weights: compatibility checks and loading."""

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
"""Key in the metadata of a weights file."""
_FIX = "correct teacher.weights, or remove it to train the teacher"


def teacher_weights(given: Path) -> Path:
    """Return the file for ``teacher.weights``: the path itself, or a run's teacher, or its student if it had none."""
    if not given.is_dir():
        return given
    if (given / TEACHER).exists() or ((given / RECIPE).is_file() and not (given / STUDENT).is_file()):
        return given / TEACHER
    return given / STUDENT if (given / STUDENT).is_file() else given


def check_readable(recipe: Recipe) -> None:
    """Check that all files of weights can be read, before recordings are decoded.

    Raises:
        TrainingError: A file cannot be read; the first one is named.
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
        TrainingError: The weights cannot be read, are of another network, or were trained for other classes, sensors,
            signals or sensor networks.
    """
    check_classes(given, labels)
    check_settings(given, config)
    load_trained(model, teacher_weights(given))


def check_classes(given: Path, labels: Sequence[str]) -> None:
    """Check that the teacher of a run has the same classes.

    Raises:
        TrainingError: The class names differ.
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
    """Check that a teacher of sensors had the same settings, if its run or its file records them.

    Raises:
        TrainingError: A setting differs; the first one is named.
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
    """Return the metadata of a teacher's file for ``check_settings``; None if the network determines everything."""
    return {_SETTINGS: json.dumps(config.trained_for)} if config.trained_for else None


def _trained_with(given: Path) -> dict[str, Any]:
    """Settings of a trained teacher, from the recipe of its run or from its file; empty if neither has them."""
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
        return {}  # reported when the weights are loaded
    return found if isinstance(found, dict) else {}


def load_trained(model: nn.Module, path: Path, fix: str = _FIX) -> None:
    """Load the weights of a trained teacher.

    Args:
        model: The network.
        path: The file of weights.
        fix: Advice for the error message.

    Raises:
        TrainingError: The file cannot be read or is of another network.
    """
    fault = load_whole(model, local_state(path, fix), "teacher")
    if fault:
        raise TrainingError(
            f"weights {path} do not fit the teacher ({fault})",
            "weights trained with the same [teacher.model], preprocess, classes and segments",
            fix,
        )
