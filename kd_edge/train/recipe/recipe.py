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
from kd_edge.train.recipe.stages import (
    AnyTeacher,
    OnnxTeacherConfig,
    SensorTeacherConfig,
    Stage,
    StageConfig,
    Strict,
    StudentConfig,
    TeacherConfig,
)
from kd_edge.train.recipe.student_stages import (
    AnyStage,
    DenseLoss,
    DenseStage,
    DenseTarget,
    FeatureTargets,
    HeadStage,
    JointTargets,
    LabelsStage,
    PixelTargets,
    SignalTargets,
    WindowKind,
)

__all__ = ["OnnxTeacherConfig", "Recipe", "SensorTeacherConfig", "Stage", "StudentConfig", "TeacherConfig"]

LossConfig = Annotated[Loss | DenseLoss, Field(discriminator="kind")]

LONGEST_CLIP_S = 3600
"""As of artifacts."""


SHUFFLED = ("images", "sensors")
"""Kinds of teachers that can be shown another clip than the student."""


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
            with the action and always have another one before it.
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
        if self.teacher is None and self.teacher_losses:
            raise ValueError("losses need a teacher: add [teacher], or set losses = []")
        if self.teacher_shuffle is not None and (self.teacher is None or self.teacher.kind not in SHUFFLED):
            raise ValueError(f"teacher_shuffle is for a teacher of kind {' or '.join(SHUFFLED)}: leave it out")
        if self.teacher_shuffle is not None and (self.feature_targets or not self.teacher_losses):
            raise ValueError(
                "teacher_shuffle is of losses that compare the student with its teacher, dense targets 'features' stay "
                "with their clips: add such [[losses]] and take 'features' out of the targets, or leave it out"
            )
        if self.teacher is not None and not self.teacher_losses and not self.feature_targets:
            raise ValueError(
                "a teacher without losses teaches nothing: add [[losses]], or a dense stage whose targets have "
                "'features', or remove [teacher]"
            )
        asking = [loss.kind for loss in self.teacher_losses if loss.needs_answers]
        if isinstance(self.teacher, OnnxTeacherConfig) and asking:
            raise ValueError(
                f"loss '{asking[0]}' compares logits, and an encoder names no class: set losses to none, or to some on "
                "features (contrastive, rkd, cc, sp, semantic)"
            )
        slow = [loss.kind for loss in self.losses if loss.warmup_epochs > self.student.epochs]
        if slow:
            raise ValueError(f"loss '{slow[0]}' warms up for longer than student.epochs: lower its warmup_epochs")
        if self.cache_every > 1 and any(stage.has_motion for stage in self.networks.values()):
            raise ValueError("cache_every drops the frames that motion stacks need: set it to 1")
        if self.compares_clips and self.student.batch_size < 2:
            raise ValueError(
                f"loss '{self.compares_clips}' compares a batch's clips: student.batch_size must be at least 2"
            )
        if self.semantics is None and self.needs_semantics:
            raise ValueError(
                f"{self.needs_semantics} compares with the class names' vectors: add [semantics] with vectors = "
                "'FILE' (kd-edge data glove imports them)"
            )
        return self

    @model_validator(mode="after")
    def _stages_follow(self) -> Recipe:
        kinds = [stage.kind for stage in self.stages]
        if kinds not in (
            ["labels"],
            ["labels", "head"],
            ["dense", "labels"],
            ["dense", "head"],
            ["dense", "labels", "head"],
        ):
            raise ValueError(
                f"stages are {', '.join(kinds)}: in this order, each once, they are dense, labels and head, of which "
                "labels or dense comes before head"
            )
        model, labels = self.student.model, self.labels_stage
        if kinds != ["labels"] and model.has_shifts:
            raise ValueError(
                f"dense and head stages need features of single frames; temporal '{model.temporal}' mixes segments"
            )
        if labels is None and self.losses:
            raise ValueError("losses are of the labels stage, which the stages leave out")
        fewer = None if labels is None else labels.segments
        if fewer is not None and (self.head_stage is None or self.teacher_losses or model.temporal == "trn"):
            raise ValueError(
                "segments of a labels stage is for a student without losses whose head takes any number of them and "
                "is trained on more in a head stage"
            )
        if model.reads == "targets" and not self.keeps_targets:
            raise ValueError(
                "student.model.reads = 'targets' is for what a dense stage regresses: add one that keeps it, or leave "
                "reads out"
            )
        crossfit = None if self.head_stage is None else self.head_stage.crossfit
        if crossfit is not None and (kinds != ["dense", "head"] or model.reads != "targets"):
            raise ValueError(
                "crossfit is for a dense and a head stage with student.model.reads = 'targets': features of several "
                "encoders have nothing in common, what they regress has"
            )
        mirrored = [_MIRRORED[type(target)] for target in self._dense_targets if type(target) in _MIRRORED]
        if self.student.augment.flip and mirrored:
            raise ValueError(f"{mirrored[0]}: set student.augment.flip = false")
        if self.feature_targets and isinstance(self.teacher, TeacherConfig) and self.teacher.model.has_shifts:
            mixing = self.teacher.model.temporal
            raise ValueError(
                f"dense targets 'features' are of single frames; teacher temporal '{mixing}' mixes segments"
            )
        for table in (self.dense_stage, self.dense_loss):
            if table is not None and sum(isinstance(target, FeatureTargets) for target in table.targets) > 1:
                raise ValueError("there is one teacher: name 'features' once in the targets")
        if sum(isinstance(loss, DenseLoss) for loss in self.losses) > 1:
            raise ValueError("name loss 'dense' once, with all its targets")
        if self.feature_targets and not isinstance(self.teacher, TeacherConfig | OnnxTeacherConfig):
            raise ValueError(
                "dense targets 'features' are of a teacher that sees images: add [teacher], of kind images or onnx; "
                "what sensors measure are targets of kind 'signals'"
            )
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
        return tuple(target for target in self._dense_targets if isinstance(target, FeatureTargets))

    @property
    def _dense_targets(self) -> list[DenseTarget]:
        return [
            target for table in (self.dense_stage, self.dense_loss) if table is not None for target in table.targets
        ]

    @property
    def labels_stage(self) -> LabelsStage | None:
        """The stage that trains the whole network, where there is one."""
        return next((stage for stage in self.stages if isinstance(stage, LabelsStage)), None)

    @property
    def first_segments(self) -> int:
        """T while the whole network is trained."""
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
        """Input of one clip, (T, C, S, S), of student and teacher; None without a teacher."""
        if self.teacher is None:
            return None
        return self.student.clip_shape(self.segments), self.teacher.clip_shape(self.segments)

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
        values = self._deciding("student", "losses", "stages", "teacher_shuffle")
        if self.wearables is not None:
            values["clips"] = self.student.modality  # whose time the signals are resampled onto
        return _hash(values)

    def _deciding(self, *without: str) -> dict[str, Any]:
        """All values but the name's, the loader's, the folder's and those of ``without``."""
        left: dict[str, Any] = {"name": True, "workers": True, "data": {"root"}, **dict.fromkeys(without, True)}
        values = self.model_dump(mode="json", exclude=left)
        for name in self.networks.keys() & values.keys():
            values[name] = _as_before(values[name])
            for part in ("augment", "model"):
                if part in values[name]:
                    values[name][part] = _as_before(_in_use(values[name][part]))
        if "stages" in values:
            values["stages"] = [_stage_as_before(stage) for stage in values["stages"]]
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
    "stages": [{"kind": "labels", "segments": None}],
}
"""Keys that came after the first runs, as those were trained: so they keep their fingerprints."""


_ADDED_TO_STAGES: dict[str, Any] = {"shuffle": None, "crossfit": None, "frame": "sensor", "same_device": {}}
"""Likewise of the student's stages and their targets."""


_OF_HEADS: dict[str, tuple[Temporal, ...]] = {"dropout_at": ("tconv", "trn"), "relation_hidden": ("trn",)}
"""Keys of a model that decide nothing under another temporal head, of those that came after the first runs."""


_MIRRORED: dict[type, str] = {
    JointTargets: "a mirrored skeleton has its sides changed",
    SignalTargets: "signals of worn sensors are not mirrored with the picture",
    PixelTargets: "components of the picture are not mirrored with it",
}
"""Dense targets that a mirrored picture would contradict, and why."""


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
