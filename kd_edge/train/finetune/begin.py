"""Initialises a student from a source of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kd_edge.models import ClipModel, build_model
from kd_edge.models.weights import COUNTER
from kd_edge.rundir import SourceNote
from kd_edge.train.finetune.differences import differences
from kd_edge.train.finetune.folded import calibrate, folded_pairs, unfolded
from kd_edge.train.finetune.freezing import check_stages, freeze
from kd_edge.train.finetune.source import Source, open_source
from kd_edge.train.finetune.transfer import Taken, fitting_backbone, take
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe

CALIBRATION_CLIPS = 32
"""Number of training clips used to re-estimate batch normalisation of an artifact."""


def ready(recipe: Recipe) -> Recipe:
    """The recipe with the hash of its student's source; fails if that is unreadable or has another backbone.

    To be asked before recordings are decoded: what depends on their classes is found by ``begin_from``.

    Raises:
        KdEdgeError: It cannot be read, is another file than the run began with, or has another backbone.
        ConfigError: A stage that is to be frozen is none of the backbone's.
    """
    config = recipe.student
    check_stages(config)
    source = open_source(config)
    if source is None:
        return recipe
    with torch.device("meta"):  # shapes alone; nothing is computed
        model = build_model(config.model, config.preprocess.input_channels, 2, recipe.first_segments)
        fitting_backbone(model, source, _whole(model, source))
    return recipe.model_copy(update={"student": config.model_copy(update={"source_sha256": source.sha256})})


def begin_from(model: ClipModel, source: Source, material: Material) -> SourceNote:
    """Load a source's weights into a new student, freeze parts as configured, and report what was done.

    Args:
        model: The student, with its initial weights.
        source: What it goes on from.
        material: The recipe and its recordings.

    Raises:
        TrainingError: Nothing of it fits, see ``take``.
        ConfigError: A stage that is to be frozen is none of the backbone's.
    """
    labels = material.dataset.labels
    taken = take(model, source, _whole(model, source), labels)
    if source.is_folded:
        norms = [norm for norm in folded_pairs(model).values() if f"{norm}.running_var" in taken.state]
        with torch.random.fork_rng(devices=[]):  # a loader draws a number, and nothing else here may depend on that
            calibrate(model, norms, _clips(material))
    return _note(model, source, taken, material, freeze(model, material.student))


def _whole(model: ClipModel, source: Source) -> Mapping[str, Tensor]:
    """A source's weights including every batch normalisation."""
    return unfolded(model, source.weights) if source.is_folded else source.weights


def _clips(material: Material) -> Iterator[Tensor]:
    every = max(1, len(material.train) // CALIBRATION_CLIPS)
    some = material.train[::every][:CALIBRATION_CLIPS]
    for batch in material.evaluation_loader("student", some, material.recipe.first_segments):
        yield batch["inputs"][0]


def _note(model: ClipModel, source: Source, taken: Taken, material: Material, frozen: int) -> SourceNote:
    config, labels = material.student, material.dataset.labels
    own = [key for key in model.state_dict() if not key.endswith(COUNTER)]
    theirs = () if source.facts is None else (*source.facts.labels, *source.facts.added)
    stage = material.recipe.head_stage
    begins_anew = "; the head stage begins with a new one (start = 'trained' keeps it)"
    return SourceNote(
        source=source.name,
        kind=source.kind,
        precision=source.precision,
        sha256=source.sha256,
        taken=sum(key in taken.state for key in own),
        new=sum(key not in taken.state for key in own),
        ignored=dict(taken.ignored),
        channels=taken.channels,
        head=taken.head + (begins_anew if stage is not None and stage.start == "new" else ""),
        classes_kept=taken.classes,
        classes_new=tuple(label for label in labels if label not in taken.classes),
        classes_left=tuple(label for label in theirs if label not in labels),
        frozen=(config.freeze,) if isinstance(config.freeze, str) else config.freeze or (),
        frozen_parameters=frozen,
        head_rate=config.head_rate,
        differences=differences(source.facts, material),
    )
