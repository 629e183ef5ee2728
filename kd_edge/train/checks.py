"""Checks that stop a run: non-finite losses or weights, changed recordings, batches that devices cannot share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig


def check_finite(losses: dict[str, float], stage: str, epoch: int, step: int, folder: Path) -> None:
    """Check that all losses are finite; otherwise the state of the last epoch is kept."""
    if all(math.isfinite(value) for value in losses.values()):
        return
    terms = ", ".join(f"{key} {value:.4g}" for key, value in losses.items())
    kept = f"the state after epoch {epoch - 1} is kept in {folder}" if epoch > 1 else "no epoch was finished"
    raise TrainingError(
        f"the {stage}'s loss is not finite in epoch {epoch}, step {step} ({terms}); {kept}",
        "finite losses",
        f"train again with a lower {_rate_of(stage)}",
    )


def check_weights(learner: nn.Module, stage: str, epoch: int, folder: Path) -> None:
    """Check that weights are finite before they are saved: the last step may have broken them after a finite loss."""
    if all(bool(torch.isfinite(value).all()) for value in learner.state_dict().values()):
        return
    kept = f"the state after epoch {epoch - 1} is kept in {folder}" if epoch > 1 else "no epoch was finished"
    raise TrainingError(
        f"the {stage}'s weights are not finite after epoch {epoch}; {kept}",
        "finite weights",
        f"train again with a lower {_rate_of(stage)}",
    )


def _rate_of(stage: str) -> str:
    """Name of a stage's learning rate in a recipe."""
    return f"{stage}.learning_rate" if stage in ("student", "teacher") else f"learning_rate of the {stage} stage"


def check_same_data(state: dict[str, Any] | None, material: Material, folder: Path) -> None:
    """Check that a run resumes with the same recordings."""
    if state is not None and state["data_fingerprint"] != material.fingerprint:
        raise TrainingError(
            f"the recordings differ from those with which {folder} was started",
            "the same recordings",
            "restore them, or start a new run",
        )


def check_batches(recipe: Recipe, world: int) -> None:
    """Check that the devices can share batches evenly."""
    trained = {k: stage for k, stage in recipe.networks.items() if not isinstance(stage, OnnxTeacherConfig)}
    sizes = {f"{name}.batch_size": stage.batch_size for name, stage in trained.items()}
    for stage in (recipe.dense_stage, recipe.head_stage):
        if stage is not None:
            sizes[f"batch_size of the {stage.kind} stage"] = stage.batch_size
    for name, size in sizes.items():
        if size % world:
            raise ConfigError(
                f"{name} {size} on {world} devices", "a multiple of the number of devices", f"change {name}"
            )
    if recipe.compares_clips and recipe.student.batch_size // world < 2:
        raise ConfigError(
            f"loss '{recipe.compares_clips}' compares the clips of a batch, and a device gets one clip",
            "at least two clips on each device",
            "raise student.batch_size, or use fewer devices",
        )
