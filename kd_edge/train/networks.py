"""The networks of a run: built from the recipe, with initial or trained weights."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import torch

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel, build_model
from kd_edge.models.backbones import local_state, start_from_motion
from kd_edge.train.distil import Learner, teach
from kd_edge.train.material import Material
from kd_edge.train.run import TEACHER


def build(material: Material, name: str) -> ClipModel:
    """A stage's model with its initial weights; the same for the same seed."""
    stage, recipe = material.stage(name), material.recipe
    torch.manual_seed(zlib.crc32(f"{recipe.seed} {name} 0".encode()))
    classes = len(material.dataset.labels)
    channels = stage.preprocess.input_channels
    model = build_model(stage.model, channels, classes, recipe.segments, stage.initial_weights)
    if stage.preprocess.has_motion and stage.initial_weights is None:
        start_from_motion(model.backbone, stage.preprocess.channels)
    return model


def teacher_weights(given: Path) -> Path:
    """The file of a recipe's ``teacher.weights``: itself, or the teacher of a run directory."""
    return given / TEACHER if given.is_dir() else given


def load_trained(model: ClipModel, path: Path) -> None:
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
    if recipe.teacher is None:
        return
    student, teacher = build(material, "student"), build(material, "teacher")
    learner = Learner(student, recipe.losses, teacher, recipe.clip_shapes, epochs=recipe.student.epochs).eval()
    mine, theirs = (torch.zeros(2, *stage.clip_shape(recipe.segments)) for stage in (recipe.student, recipe.teacher))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two equal clips have no graph
        learner(mine, torch.tensor([0, 1]), teach(teacher, theirs, learner.teacher_taps))
