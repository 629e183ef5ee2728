"""The networks of a run: built from the recipe, with initial or trained weights."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel, build_model
from kd_edge.models.backbones import local_state, start_from_motion
from kd_edge.train.material import Material


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
