"""The dense stage: the backbone regresses targets of a richer modality, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from kd_edge.data import Sample
from kd_edge.data.dataset import UNLABELLED
from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.backbones import Regression
from kd_edge.rundir import DenseReport, Selection
from kd_edge.train.collapse import SpreadMeter
from kd_edge.train.inputs.clips import Batch, EpochBatches, Loaders, make_loader
from kd_edge.train.inputs.dense import FrameDataset
from kd_edge.train.inputs.embeddings import SeenClip
from kd_edge.train.inputs.features import encode
from kd_edge.train.inputs.material import Material, training_batches
from kd_edge.train.inputs.targets import DenseTargets, StudentClips, complete_features, components_file
from kd_edge.train.losses import dense_regression
from kd_edge.train.recipe import DenseStage
from kd_edge.train.recipe.student_stages import FeatureTargets
from kd_edge.train.teachers.base import LabelLearner, Observation, Teacher

EVALUATED_FRAMES = 16
"""Number of frames evaluated per validation clip."""


class DenseLearner(LabelLearner):
    """Trains a backbone on dense targets.

    Args:
        model: The student; only its backbone is trained.
        targets: The targets.
        keep: Whether the backbone regresses them itself; otherwise a layer does that is dropped afterwards.
    """

    answers = False

    def __init__(self, model: ClipModel, targets: DenseTargets, *, keep: bool) -> None:
        super().__init__(model.backbone)
        self.size = targets.size
        self.regressor = nn.Identity() if keep else Regression(model.backbone.feature_size, targets.size)
        self.spread = SpreadMeter()
        self.register_buffer("number_weights", torch.from_numpy(targets.weights), persistent=False)

    def regress(self, frames: Tensor) -> Tensor:
        """Regress the targets (B, F, M) from frames (B, F, C, S, S)."""
        parts = [part for part in (*self.model.children(), self.regressor) if not isinstance(part, nn.Identity)]
        *encoder, regression = parts
        feature = frames.flatten(0, 1)  # (B*F, C, S, S)
        for part in encoder:
            feature = part(feature)
        if self.spread is not None and self.training:  # the regressor's input, which the student may not keep
            self.spread.add(feature, self.size)  # (B*F, D)
        regressed: Tensor = regression(feature)  # (B*F, D + M), or (B*F, M)
        return regressed[:, -self.size :].reshape(*frames.shape[:2], self.size)

    def forward(
        self, inputs: Tensor, labels: Tensor, seen: Sequence[Observation] | None = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the losses of frames (B, F, C, S, S); ``labels`` are the targets (B, F, M)."""
        regressed = self.regress(inputs)
        value = dense_regression(regressed, labels, weights=self.get_buffer("number_weights"))
        return {"dense": value, "total": value}, regressed


def frame_loaders(material: Material, stage: DenseStage, *, rank: int = 0, world: int = 1) -> Loaders:
    """Make loaders of random frames of the training clips, including unlabelled ones, that have any target."""
    targets = material.dense_targets
    clips = material.student_clips(material.with_targets(material.dense_train), changing=True)
    batches = training_batches(material.recipe, stage, clips.pairs.samples, stage.batch_size, rank=rank, world=world)
    dataset = FrameDataset(clips, targets, stage.frames)
    notes = lacking_note(targets, material.dense_train), _nobody_note(material)
    note = "; ".join(each for each in notes if each)
    return Loaders(make_loader(dataset, batches, material.recipe.workers), batches, None, note)


def _nobody_note(material: Material) -> str:
    """Note on unlabelled clips without a subject, which may show a person of the test side."""
    count = sum(sample.label == UNLABELLED and not sample.subject for sample in material.dense_only)
    return f"{count} clips without a label name no subject: they may show people of the test side" if count else ""


def lacking_note(targets: DenseTargets, samples: Sequence[Sample]) -> str:
    """Describe how many clips lack each target, and why the first one does; empty if none does."""
    ids = {sample.id for sample in samples}
    notes = []
    for name, lacks in targets.lacking.items():
        if lacking := sorted(ids & lacks.keys()):
            notes.append(f"{len(lacking)} of {len(ids)} clips lack {name} ({lacking[0]}: {lacks[lacking[0]]})")
    return ", ".join(notes)


def take_features(
    material: Material, targets: DenseTargets, target: FeatureTargets, teacher: Teacher, device: torch.device, run: Path
) -> bool:
    """Compute a trained teacher's features and add them to the dense targets.

    Args:
        material: The clips.
        targets: The targets to complete.
        target: Settings of the features.
        teacher: An image network, or the placeholder of a frozen encoder whose embeddings are in the material.
        device: Device of the computation.
        run: The run directory, in which the principal components are stored.

    Returns:
        True.

    Raises:
        DataError: No training clip has features.
        TrainingError: The stored components are damaged, or there is no such teacher.
    """
    space = material.feature_space
    if space is None:
        raise TrainingError("a recipe without an image teacher", "one that has it", "add [teacher]")
    samples, stamps = (*material.dense_train, *material.validation), material.stamps_ns
    sides = (material.train, material.validation, material.dense_only)
    clips = StudentClips(material.dataset, samples, stamps, sides, material.recipe.seed)
    seen = _embedded(material, samples) if material.embeddings else _encoded(material, samples, teacher, device)
    complete_features(
        targets,
        target,
        space,
        seen,
        clips,
        material.train,
        run / components_file(target),
    )
    return True


def _embedded(material: Material, samples: Sequence[Sample]) -> Iterator[tuple[str, SeenClip | str]]:
    embeddings = material.embeddings["teacher"]
    for sample in samples:
        why = embeddings.skipped.get(sample.id, "it was not encoded")
        yield sample.id, embeddings.clip(sample.id) if sample.id in embeddings else why


def _encoded(
    material: Material, samples: Sequence[Sample], teacher: Teacher, device: torch.device
) -> Iterator[tuple[str, SeenClip | str]]:
    backbone = cast(ClipModel, teacher).backbone
    clips = material.teacher_clips(material.having("teacher", samples))
    available = clips.pairs.samples
    for position, sample in enumerate(available):
        stamps = clips.pairs.clips(position)[0].stamps_ns
        yield sample.id, SeenClip(stamps, encode(backbone, clips.still(position, np.arange(len(stamps))), device))
    for sample in samples:
        if sample not in available:
            yield sample.id, material.caches["teacher"].skipped.get(sample.id, "the teacher was not shown it")


def report(material: Material, learner: DenseLearner, kept: Selection, device: torch.device) -> DenseReport:
    """Report the stage: the explained variance of each target on the validation clips."""
    targets = material.dense_targets
    ours = {sample.id for sample in material.dense_train}
    lacking = {name: len(ours & without.keys()) for name, without in targets.lacking.items()}
    samples = material.with_targets(material.having("student", material.validation))
    explained: dict[str, float | None] = {}
    if samples:
        clips = material.student_clips(samples)
        loader = make_loader(FrameDataset(clips, targets, EVALUATED_FRAMES), EpochBatches(len(samples), 8, None), 0)
        explained = explained_shares(learner, loader, targets, device)
    absent = {name: round(share, 4) for name, share in targets.absent(material.dense_train).items()}
    return DenseReport(
        **kept.model_dump(),
        targets=targets.size,
        explained=explained,
        lacking=lacking,
        absent=absent,
        unlabelled=sum(sample.label == UNLABELLED for sample in material.with_targets(material.dense_only)),
    )


def explained_shares(
    learner: DenseLearner, loader: Iterable[Batch], targets: DenseTargets, device: torch.device
) -> dict[str, float | None]:
    """Compute group -> 1 - mean squared error / variance over a loader's frames; None if no frame has the target."""
    learner.eval()
    found, wanted = [], []
    with torch.inference_mode():
        for batch in loader:
            found.append(learner.regress(batch["inputs"][0].to(device)).float().cpu().numpy())
            wanted.append(batch["labels"].numpy())
    regressed, truth = (np.concatenate(x).reshape(-1, targets.size).astype(np.float64) for x in (found, wanted))
    shares: dict[str, float | None] = {}
    for group in targets.groups:
        right, ours = truth[:, group.columns], regressed[:, group.columns]
        present = ~np.isnan(right)
        mean = np.where(present, right, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
        spread = ((right - mean)[present] ** 2).sum()
        shares[group.name] = round(1 - float(((right - ours)[present] ** 2).sum() / spread), 4) if spread else None
    return shares
