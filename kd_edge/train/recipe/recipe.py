"""What a training run is: one TOML file as a frozen pydantic model, with the MGCAM paper's values as defaults."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kd_edge.data import DataConfig, Dataset, SyntheticData
from kd_edge.data.words.class_vectors import SemanticsConfig
from kd_edge.models.config import Temporal
from kd_edge.train.distil.methods import DkdLoss, Loss, Method, MgcamLoss
from kd_edge.train.recipe.consistency import contradictions
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
from kd_edge.train.recipe.teacher_stages import (
    AnyTeacher,
    OnnxTeacherConfig,
    SensorTeacherConfig,
    TeacherConfig,
    TrainedTeacher,
)

__all__ = ["OnnxTeacherConfig", "Recipe", "SensorTeacherConfig", "Stage", "StudentConfig", "TeacherConfig"]

Stage = StudentConfig | TrainedTeacher | OnnxTeacherConfig

LossConfig = Annotated[Loss | DenseLoss, Field(discriminator="kind")]

LONGEST_CLIP_S = 3600
"""As of artifacts."""


class Recipe(Strict):
    """One training run.

    Attributes:
        name: How run directories begin.
        data: Which recordings.
        split: Name of the data set's protocol.
        validation_subjects: Training subjects held out to choose the epoch, the temperature and the unknown threshold;
            none trains on all and keeps the last epoch.
        validation_trials: Training repetitions held out likewise, for protocols with every subject on both sides.
        seed: Where everything random starts from.
        segments: T, frames per clip.
        windows: ``clip`` spreads the segments over the whole clip; ``random`` over a random window of 0.5 to 1.5 times
            ``clip_seconds`` inside it, as a live stream sees it; ``loop`` lets that window begin before the clip, as
            when a person goes on doing the same; ``mixed`` lets two windows in five see the end of another action
            there, of the same subject, view and trial, as when a person goes on to something else. ``stream`` is for
            students that run live on actions of a few seconds: windows of 0.7 to 1.35 times ``clip_seconds`` that end
            with the action and always have another one before it. A label that is read at an action's end is best
            after ``stream``, one that is read at any moment after ``mixed``.
        clip_seconds: Length of the live window, at most an hour; None takes the median training clip.
        cache_every: Decode every frame but cache only every so-manieth: the RGB of a large data set takes hundreds of
            gigabytes otherwise. Segments are then drawn from fewer frames; not with motion stacks.
        precision: ``32-true`` or ``bf16-mixed``. Losses are always computed in float32.
        threads: CPU threads of PyTorch; None leaves its default. Weights repeat bit for bit only with the same number.
        workers: Loader processes; 0 loads between the steps, which is enough for small images.
        student: The network that ships.
        teacher: The network it learns from; none trains the student alone. Said to be none (``--set teacher=null``) it
            takes its losses with it.
        teacher_shuffle: A control: the teacher sees another clip than the student, ``class`` one of the same class,
            ``all`` any other training clip, the same one in every epoch. Crop and mirroring are still the student's,
            and so are the labels. None shows both the same clip.
        semantics: Vectors of the class names, for teachers and losses that compare with them.
        losses: Beside the cross-entropy: distillation terms, and dense targets as one of them.
        stages: What the student goes through, one after the other: ``dense`` targets frame by frame, ``labels`` end to
            end, ``head`` on stored features. Any of them may be left out, if its head sees labels in the end.
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

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("teacher", ...) is None:
            losses = values.get("losses", ())
            if isinstance(losses, list | tuple):  # what is no list is told by its own check
                losses = tuple(loss for loss in losses if _kind_of(loss) == "dense")
            return values | {"losses": losses, "teacher_shuffle": None}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if found := list(contradictions(self)):
            raise ValueError("\n".join(found))
        return self

    @property
    def dense_stage(self) -> DenseStage | None:
        """The stage on dense targets, where there is one."""
        return next((stage for stage in self.stages if isinstance(stage, DenseStage)), None)

    @property
    def keeps_targets(self) -> bool:
        """Whether what a dense stage regresses stays in the student, for its head to read."""
        stage = self.dense_stage
        return stage is not None and stage.keep and self.student.model.reads != "features"

    @property
    def teacher_losses(self) -> tuple[Method, ...]:
        """The losses that compare the student with its teacher."""
        return tuple(loss for loss in self.losses if isinstance(loss, Method))

    @property
    def dense_loss(self) -> DenseLoss | None:
        """Dense targets beside the labels, where there are some."""
        return next((loss for loss in self.losses if isinstance(loss, DenseLoss)), None)

    @property
    def keeps_dense_loss(self) -> bool:
        """Whether a dense stage left in the student what the dense loss regresses."""
        stage, loss = self.dense_stage, self.dense_loss
        return stage is not None and loss is not None and self.keeps_targets and stage.targets == loss.targets

    @property
    def feature_targets(self) -> tuple[FeatureTargets, ...]:
        """What of the teacher's features is regressed."""
        return tuple(target for target in self.dense_targets if isinstance(target, FeatureTargets))

    @property
    def dense_targets(self) -> list[DenseTarget]:
        """All that is regressed frame by frame, of the stage and of the loss."""
        return [
            target for table in (self.dense_stage, self.dense_loss) if table is not None for target in table.targets
        ]

    @property
    def labels_stage(self) -> LabelsStage | None:
        """The stage that trains the whole network, where there is one."""
        return next((stage for stage in self.stages if isinstance(stage, LabelsStage)), None)

    @property
    def first_segments(self) -> int:
        """T while the whole network is trained, and of its teacher, who sees the same moments."""
        labels = self.labels_stage
        return self.segments if labels is None or labels.segments is None else labels.segments

    @property
    def head_stage(self) -> HeadStage | None:
        """The stage on stored features, where there is one."""
        return next((stage for stage in self.stages if isinstance(stage, HeadStage)), None)

    @property
    def networks(self) -> dict[str, Stage]:
        """Student and teacher, where there is one."""
        student: dict[str, Stage] = {"student": self.student}
        return student if self.teacher is None else student | {"teacher": self.teacher}

    @property
    def image_stages(self) -> dict[str, StageConfig]:
        """Student and teacher, those that see images."""
        return {name: stage.images for name, stage in self.networks.items() if stage.images is not None}

    @property
    def wearables(self) -> SensorTeacherConfig | None:
        """The teacher's settings, where wearable sensors teach."""
        return None if self.teacher is None else self.teacher.wearables

    @property
    def modalities(self) -> list[str]:
        """Names of everything of the data set that is used, sensors one by one."""
        return [used for stage in reversed(self.networks.values()) for used in stage.modalities]

    @property
    def needs_semantics(self) -> str:
        """What of the recipe cannot do without the class names' vectors; empty when nothing needs them."""
        needing = [f"loss '{loss.kind}'" for loss in self.teacher_losses if loss.needs_vectors]
        return next(iter(needing), "" if self.teacher is None else self.teacher.needs_vectors)

    @property
    def compares_clips(self) -> str:
        """The first loss that compares the clips of a batch with one another; empty when none does."""
        return next((loss.kind for loss in self.teacher_losses if loss.between_clips), "")

    @property
    def clip_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Input of one clip, (T, C, S, S), while the teacher teaches the student; None without a teacher."""
        if self.teacher is None:
            return None
        segments = self.first_segments
        return self.student.clip_shape(segments), self.teacher.clip_shape(segments)

    def check_data(self, dataset: Dataset) -> None:
        """Refuse a data set that does not have what the recipe asks for.

        Raises:
            ConfigError: Settings of another modality than the data set's, or of a class that it does not have.
            DataError: No such modality, or clips are mirrored that must not be.
        """
        for name, stage in self.networks.items():
            stage.check_data(name, dataset)
            stage.check_classes(name, dataset.labels)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the weights; not of where the recordings lie."""
        return _hash(self._deciding())

    def teacher_fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the teacher's weights: equal ones need training only once."""
        values = self._deciding("student", "losses", "stages", "teacher_shuffle") | {"segments": self.first_segments}
        if self.wearables is not None:
            values["clips"] = self.student.modality  # whose time the signals are resampled onto
        return _hash(values)

    def dense_fingerprint(self) -> str | None:
        """SHA-256 (hex) of everything that decides the backbone after the dense stage: equal ones are trained once.

        None where there is no such stage, or where its student or teacher goes on from a file.
        """
        if self.dense_stage is None or self.student.source is not None:
            return None
        asked = self.teacher if self.dense_stage.features is not None else None
        if asked is not None and asked.weights:
            return None
        values = self._deciding("teacher", "losses", "teacher_shuffle", "stages")
        values["student"]["model"].pop("reads", None)
        if asked is not None:
            values["teacher"] = self.teacher_fingerprint()
        stage = _stage_as_before(self.dense_stage.model_dump(mode="json"))
        return _hash({**values, "stage": stage, "kept": self.keeps_targets})

    def _deciding(self, *without: str) -> dict[str, Any]:
        """All values but the name's, the loader's, the folder's and those of ``without``."""
        left: dict[str, Any] = {"name": True, "workers": True, "data": {"root"}, "student": {"source_sha256"}}
        left |= dict.fromkeys(without, True)
        values = self.model_dump(mode="json", exclude=left)
        if isinstance(self.teacher, OnnxTeacherConfig) and "teacher" in values:
            del values["teacher"]["file"]  # wherever it lies: what is in it is part of the recordings' fingerprint
        for name in self.networks.keys() & values.keys():
            values[name] = _as_before(values[name])
            for part in ("augment", "model", "preprocess"):
                if part in values[name]:
                    values[name][part] = _as_before(_in_use(values[name][part]))
        if "stages" in values:
            values["stages"] = [_stage_as_before(stage) for stage in values["stages"]]
        for target in (target for loss in values.get("losses", ()) for target in loss.get("targets", ())):
            if target["kind"] == "features" and target["shuffle"] is None:  # others had it when losses got targets
                del target["shuffle"]
        return _as_before(values)


_ADDED: dict[str, Any] = {
    "class_weights": None,
    "sampler": "shuffled",
    "repeat": 1,
    "rotation_degrees": 0.0,
    "quarter_turns": False,
    "aspect": 0.0,
    "erase": 0.0,
    "regressed": 0,
    "reads": "both",
    "teacher_shuffle": None,
    "dropout_at": "all",
    "relation_hidden": None,
    "source": None,
    "freeze": None,
    "holes": "averaged",
    "stages": [{"kind": "labels", "segments": None}],
}
"""Keys that came after the first runs, as those were trained: so they keep their fingerprints."""


_ADDED_TO_STAGES: dict[str, Any] = {"shuffle": None, "crossfit": None, "frame": "sensor", "same_device": {}}
"""Likewise of the student's stages and their targets."""


_OF_HEADS: dict[str, tuple[Temporal, ...]] = {"dropout_at": ("tconv", "trn"), "relation_hidden": ("trn",)}
"""Keys of a model that decide nothing under another temporal head, of those that came after the first runs."""


def _kind_of(loss: Any) -> Any:
    """A loss's kind, before it is read or after."""
    return loss.get("kind") if isinstance(loss, dict) else getattr(loss, "kind", None)


def _in_use(values: dict[str, Any]) -> dict[str, Any]:
    """A model's values without those that its temporal head does not read."""
    return {k: v for k, v in values.items() if k not in _OF_HEADS or values.get("temporal") in _OF_HEADS[k]}


def _as_before(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in _ADDED or v != _ADDED[k]}


def _stage_as_before(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage's values, and those of its targets, without what came later and is as it was."""
    kept = {k: v for k, v in stage.items() if k not in _ADDED_TO_STAGES or v != _ADDED_TO_STAGES[k]}
    return kept | {"targets": [_stage_as_before(each) for each in kept["targets"]]} if "targets" in kept else kept


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
