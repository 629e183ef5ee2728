"""The head stage: a temporal head alone, on stored features of the frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from kd_edge.models import ClipModel
from kd_edge.train.inputs.clips import EpochBatches, Loaders, make_loader
from kd_edge.train.inputs.features import FeatureDataset, store_features
from kd_edge.train.inputs.material import Material, training_batches
from kd_edge.train.inputs.windows import Windows
from kd_edge.train.recipe import HeadStage
from kd_edge.train.teachers.base import LabelLearner, Observation


class HeadLearner(LabelLearner):
    """Trains a head on windows (B, T, D) of features.

    Args:
        head: The temporal head.
        stage: Settings of the stage.
        class_weights: (K,) class weights of the cross-entropy; None means 1.
    """

    def __init__(self, head: nn.Module, stage: HeadStage, class_weights: Tensor | None = None) -> None:
        super().__init__(head, stage.label_smoothing, class_weights)
        self._mixup = stage.mixup

    def forward(
        self, inputs: Tensor, labels: Tensor, seen: Sequence[Observation] | None = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the losses of a batch of windows, with mixup if the stage has it; see ``LabelLearner.forward``."""
        if self._mixup == 0 or len(labels) < 2:
            return super().forward(inputs, labels, seen, epoch)
        share = torch.distributions.Beta(self._mixup, self._mixup).sample().to(inputs)
        other = torch.randperm(len(labels), device=inputs.device)
        logits = self.model(share * inputs + (1 - share) * inputs[other])
        value = share * self.cross_entropy(logits, labels) + (1 - share) * self.cross_entropy(logits, labels[other])
        return {"ce": value, "total": value}, logits


def feature_loaders(
    material: Material,
    model: ClipModel,
    stage: HeadStage,
    device: torch.device,
    *,
    of_subjects: Mapping[str, nn.Module] = MappingProxyType({}),
    rank: int = 0,
    world: int = 1,
) -> Loaders:
    """Encode the training and validation clips with a student's frozen backbone and make loaders of the features.

    Training clips of a subject in ``of_subjects`` are encoded by that backbone, which was not trained on them.

    Raises:
        TrainingError: The features do not fit in memory.
    """
    recipe, size = material.recipe, model.backbone.feature_size
    model.backbone.to(device)
    clips = material.student_clips(material.train, changing=True)
    stored = store_features(model.backbone, clips, size, stage.passes, device, of_subjects=of_subjects)
    note = f"{stage.passes} x {len(clips)} clips encoded, {stored.bytes / 1e6:.0f} MB"
    windows = material.windows(stage.windows or recipe.windows, recipe.segments)
    batches = training_batches(recipe, stage, stored.samples, stage.batch_size, rank=rank, world=world)
    training = make_loader(FeatureDataset(stored, windows, recipe.seed), batches, 0)
    chosen_by = material.having("student", material.validation)
    if not chosen_by:
        return Loaders(training, batches, None, note)
    seen = store_features(model.backbone, material.student_clips(chosen_by), size, 1, device)
    in_order = EpochBatches(len(chosen_by), max(stage.batch_size, 16), None)
    validation = make_loader(FeatureDataset(seen, Windows(recipe.segments), None), in_order, 0)
    return Loaders(training, batches, validation, note)
