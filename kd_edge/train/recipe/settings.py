"""The tables and keys of a recipe, with the MGCAM paper's values as defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kd_edge.data import DataConfig, SyntheticData
from kd_edge.data.words.class_vectors import SemanticsConfig
from kd_edge.train.distil.methods import DkdLoss, Loss, Method, MgcamLoss
from kd_edge.train.recipe.stages import StageConfig, Strict, StudentConfig
from kd_edge.train.recipe.student_stages import (
    AnyStage,
    DenseLoss,
    DenseStage,
    DenseTarget,
    FeatureTargets,
    HeadStage,
    LabelsStage,
    WindowKind,
)
from kd_edge.train.recipe.teacher_stages import AnyTeacher, OnnxTeacherConfig, SensorTeacherConfig, TrainedTeacher

Stage = StudentConfig | TrainedTeacher | OnnxTeacherConfig

LossConfig = Annotated[Loss | DenseLoss, Field(discriminator="kind")]

LONGEST_CLIP_S = 3600
"""Upper limit of ``clip_seconds``; artifacts have this limit, too."""


class Settings(Strict):
    """The tables and keys of one training run, and properties that combine them. ``Recipe`` checks their consistency.

    Attributes:
        name: First part of the run directories' names.
        data: The recordings.
        split: Name of the data set's protocol.
        validation_subjects: Training subjects held out to choose the epoch, the temperature and the unknown threshold;
            if empty, all are trained on and the last epoch is kept.
        validation_trials: Training repetitions held out for that purpose, for protocols with every subject on both
            sides.
        seed: Seed of all random numbers.
        segments: T, frames per clip.
        windows: How the segments are placed. ``clip`` spreads them over the whole clip. ``random`` spreads them over a
            random window of 0.5 to 1.5 times ``clip_seconds`` inside the clip, as in a live stream. ``loop`` lets that
            window begin before the clip, as if the person repeated the action. ``mixed`` fills that time, in two of
            five windows, with the end of another action of the same subject, view and trial, as if the person changed
            actions; best for labels that are read at any moment. ``stream`` takes windows of 0.7 to 1.35 times
            ``clip_seconds`` that end with the action and always begin in another one: for students that run live on
            actions of a few seconds; best for labels that are read at the end of an action.
        clip_seconds: Length of the live window, at most an hour; None uses the median training clip.
        cache_every: Decode every frame but cache only every n-th: otherwise the RGB of a large data set takes hundreds
            of gigabytes. Segments are then drawn from fewer frames; not usable with motion stacks.
        precision: ``32-true`` or ``bf16-mixed``. Losses are always computed in float32.
        threads: CPU threads of PyTorch; None keeps its default. Weights are bit-identical only with an equal number.
        workers: Loader processes; 0 loads between the steps, which is enough for small images.
        student: The network that ships.
        teacher: The network it learns from; without one the student is trained alone. An explicit null
            (``--set teacher=null``) also removes the losses that need a teacher.
        teacher_shuffle: A control: the teacher sees another clip than the student, the same one in every epoch:
            ``class`` one of the same class, ``all`` any other training clip. Crop, mirroring and labels remain the
            student's. None shows both the same clip.
        semantics: Vectors of the class names, for teachers and losses that compare with them.
        losses: Losses in addition to the cross-entropy: distillation terms, and dense targets as one of them.
        stages: The student's training stages, in order: ``dense`` targets frame by frame, ``labels`` end to end,
            ``head`` on stored features. Any may be omitted, as long as the head is trained on labels.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    data: DataConfig = SyntheticData()
    split: str
    validation_subjects: tuple[str, ...] = ()
    validation_trials: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    segments: Annotated[int, Field(ge=2, le=64)] = 8
    windows: WindowKind = "clip"
    clip_seconds: Annotated[float, Field(gt=0, le=LONGEST_CLIP_S)] | None = None
    cache_every: Annotated[int, Field(ge=1, le=100)] = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: Annotated[int, Field(ge=1)] | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    student: StudentConfig
    teacher: AnyTeacher | None = None
    teacher_shuffle: Literal["class", "all"] | None = None
    semantics: SemanticsConfig | None = None
    losses: tuple[LossConfig, ...] = (DkdLoss(), MgcamLoss())
    stages: Annotated[tuple[AnyStage, ...], Field(min_length=1)] = (LabelsStage(),)

    @property
    def dense_stage(self) -> DenseStage | None:
        """The stage on dense targets, if any."""
        return next((stage for stage in self.stages if isinstance(stage, DenseStage)), None)

    @property
    def keeps_targets(self) -> bool:
        """Whether the student keeps the numbers that a dense stage regresses, as input of its head."""
        stage = self.dense_stage
        return stage is not None and stage.keep and self.student.model.reads != "features"

    @property
    def teacher_losses(self) -> tuple[Method, ...]:
        """The losses that compare the student with its teacher."""
        return tuple(loss for loss in self.losses if isinstance(loss, Method))

    @property
    def dense_loss(self) -> DenseLoss | None:
        """Dense targets beside the labels, if any."""
        return next((loss for loss in self.losses if isinstance(loss, DenseLoss)), None)

    @property
    def keeps_dense_loss(self) -> bool:
        """Whether the student kept, from its dense stage, the regression of the dense loss's targets."""
        stage, loss = self.dense_stage, self.dense_loss
        return stage is not None and loss is not None and self.keeps_targets and stage.targets == loss.targets

    @property
    def feature_targets(self) -> tuple[FeatureTargets, ...]:
        """The regressed features of the teacher."""
        return tuple(target for target in self.dense_targets if isinstance(target, FeatureTargets))

    @property
    def dense_targets(self) -> list[DenseTarget]:
        """All targets regressed frame by frame, of the stage and of the loss."""
        return [
            target for table in (self.dense_stage, self.dense_loss) if table is not None for target in table.targets
        ]

    @property
    def labels_stage(self) -> LabelsStage | None:
        """The stage that trains the whole network, if any."""
        return next((stage for stage in self.stages if isinstance(stage, LabelsStage)), None)

    @property
    def first_segments(self) -> int:
        """T while the whole network is trained; also of its teacher, which sees the same moments."""
        labels = self.labels_stage
        return self.segments if labels is None or labels.segments is None else labels.segments

    @property
    def head_stage(self) -> HeadStage | None:
        """The stage on stored features, if any."""
        return next((stage for stage in self.stages if isinstance(stage, HeadStage)), None)

    @property
    def networks(self) -> dict[str, Stage]:
        """The student, and the teacher if there is one."""
        student: dict[str, Stage] = {"student": self.student}
        return student if self.teacher is None else student | {"teacher": self.teacher}

    @property
    def image_stages(self) -> dict[str, StageConfig]:
        """Those of student and teacher that see images."""
        return {name: stage.images for name, stage in self.networks.items() if stage.images is not None}

    @property
    def wearables(self) -> SensorTeacherConfig | None:
        """The teacher's settings, if wearable sensors teach."""
        return None if self.teacher is None else self.teacher.wearables

    @property
    def modalities(self) -> list[str]:
        """Names of all modalities of the data set in use: inputs, each sensor by itself, and regressed targets."""
        seen = [used for stage in reversed(self.networks.values()) for used in stage.modalities]
        targets = [target for each in (self.dense_stage, self.dense_loss) if each for target in each.targets]
        return list(dict.fromkeys([*seen, *(name for target in targets for name in target.modalities)]))

    @property
    def needs_semantics(self) -> str:
        """The setting that requires class vectors; empty if none does."""
        needing = [f"loss '{loss.kind}'" for loss in self.teacher_losses if loss.needs_vectors]
        return next(iter(needing), "" if self.teacher is None else self.teacher.needs_vectors)

    @property
    def compares_clips(self) -> str:
        """The first loss that compares the clips of a batch with one another; empty if none does."""
        return next((loss.kind for loss in self.teacher_losses if loss.between_clips), "")

    @property
    def clip_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Input shapes of one clip, (T, C, S, S) for images, of student and teacher; None without a teacher."""
        if self.teacher is None:
            return None
        segments = self.first_segments
        return self.student.clip_shape(segments), self.teacher.clip_shape(segments)
