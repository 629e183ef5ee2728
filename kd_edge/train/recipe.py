"""What a training run is: one TOML file as a frozen pydantic model, with the MGCAM paper's values as defaults."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.data import DataConfig, SyntheticData
from kd_edge.models import ModelConfig
from kd_edge.preprocess import Preprocess
from kd_edge.train.augment import Augment as Augment
from kd_edge.train.loss_config import BETWEEN_CLIPS, DkdLoss, LossConfig, MgcamLoss

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageConfig(_Strict):
    """One network and its training.

    Attributes:
        modality: Image modality of the data set.
        model: Architecture.
        preprocess: Recorded frame to network input.
        augment: Random changes in training.
        initial_weights: Of the backbone: None (random), ``"imagenet"``, or a state-dict file.
        weights: Trained weights; the stage is not trained then. A ``.safetensors`` file, or a run directory whose
            teacher is taken. Only for the teacher.
        optimiser: ``sgd`` (with momentum) or ``adamw``.
        learning_rate: The highest one.
        momentum: Of SGD; the first beta of AdamW.
        weight_decay: On weights; biases and normalisation layers have none.
        schedule: ``step`` divides by 10 after 50 % and 75 % of the steps; ``one_cycle`` rises over the first 30 % and
            falls to nearly 0, both as a cosine.
        epochs: Passes over the training clips.
        batch_size: Clips per step, over all devices together.
        label_smoothing: Of the cross-entropy.
        bias_rate: Learning rate of the biases (normalisation layers excepted) relative to the weights'; TSN's is 2.
        head_rate: Learning rate of the classifier relative to the rest; TSM's is 5.
        clip_gradient: Largest norm of all gradients together, as in TRN (20) and MMAction2 (40); None does not clip.
    """

    modality: str
    model: ModelConfig = ModelConfig()
    preprocess: Preprocess = Preprocess()
    augment: Augment = Augment()
    initial_weights: str | None = None
    weights: Path | None = None
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["step", "one_cycle"] = "step"
    epochs: Annotated[int, Field(ge=1)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 8
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bias_rate: Positive = 1.0
    head_rate: Positive = 1.0
    clip_gradient: Positive | None = None

    def clip_shape(self, segments: int) -> tuple[int, int, int, int]:
        """The network's input for one clip, (T, C, S, S)."""
        return segments, self.preprocess.input_channels, self.preprocess.input_px, self.preprocess.input_px


class TeacherConfig(StageConfig):
    """A teacher: the paper's differs from its student in backbone and batch size."""

    model: ModelConfig = ModelConfig(backbone="resnet50")
    batch_size: Annotated[int, Field(ge=1)] = 16


class StudentConfig(StageConfig):
    """The student: always trained."""

    @model_validator(mode="after")
    def _trained(self) -> StudentConfig:
        if self.weights is not None:
            raise ValueError("weights is for the teacher; a student starts from initial_weights")
        return self


class Recipe(_Strict):
    """One training run.

    Attributes:
        name: Of the run directory.
        data: Which recordings.
        split: Name of the data set's protocol.
        validation_subjects: Training subjects held out to choose the epoch, the temperature and the unknown threshold;
            none trains on all and keeps the last epoch.
        seed: Of everything random.
        segments: T, frames per clip.
        windows: ``clip`` spreads the segments over the whole clip; ``random`` over a random window of 0.5 to 1.5 times
            ``clip_seconds`` inside it, as a live stream sees it; ``loop`` lets that window run over the clip's end into
            its start, as when a person goes on doing the same.
        clip_seconds: Length of the live window; None takes the median training clip.
        cache_every: Decode every frame but cache only every so-manieth: the RGB of a large data set takes hundreds of
            gigabytes otherwise. Segments are then drawn from fewer frames; not with motion stacks.
        precision: ``32-true`` or ``bf16-mixed``. Losses are always computed in float32.
        threads: CPU threads of PyTorch; None leaves its default. Weights repeat bit for bit only with the same number.
        workers: Loader processes; 0 loads between the steps, which is enough for small images.
        student: The network that ships.
        teacher: The network it learns from; none trains the student alone.
        losses: Distillation terms beside the cross-entropy.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    data: DataConfig = SyntheticData()
    split: str
    validation_subjects: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    segments: Annotated[int, Field(ge=2, le=64)] = 8
    windows: Literal["clip", "random", "loop"] = "clip"
    clip_seconds: Positive | None = None
    cache_every: Annotated[int, Field(ge=1, le=100)] = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: Annotated[int, Field(ge=1)] | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    student: StudentConfig
    teacher: TeacherConfig | None = None
    losses: tuple[LossConfig, ...] = (DkdLoss(), MgcamLoss())

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.teacher is None and self.losses:
            raise ValueError("losses need a teacher: add [teacher], or set losses = []")
        if self.teacher is not None and not self.losses:
            raise ValueError("a teacher without losses teaches nothing: add [[losses]], or remove [teacher]")
        slow = [loss.kind for loss in self.losses if loss.warmup_epochs > self.student.epochs]
        if slow:
            raise ValueError(f"loss '{slow[0]}' warms up for longer than student.epochs: lower its warmup_epochs")
        moving = any(stage is not None and stage.preprocess.has_motion for stage in (self.student, self.teacher))
        if self.cache_every > 1 and moving:
            raise ValueError("cache_every drops the frames that motion stacks need: set it to 1")
        between = [loss.kind for loss in self.losses if loss.kind in BETWEEN_CLIPS]
        if between and self.student.batch_size < 2:
            raise ValueError(f"loss '{between[0]}' compares a batch's clips: student.batch_size must be at least 2")
        return self

    @property
    def clip_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Input of one clip, (T, C, S, S), of student and teacher; None without a teacher."""
        if self.teacher is None:
            return None
        return self.student.clip_shape(self.segments), self.teacher.clip_shape(self.segments)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the weights; not of where the recordings lie."""
        return _hash(self.model_dump(mode="json", exclude={"name": True, "workers": True, "data": {"root"}}))

    def teacher_fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the teacher's weights: equal ones need training only once."""
        student = {"student": True, "losses": True}
        return _hash(self.model_dump(mode="json", exclude={"name": True, "workers": True, "data": {"root"}, **student}))


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
