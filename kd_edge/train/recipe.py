"""What a training run is: one TOML file as a frozen pydantic model, with the MGCAM paper's values as defaults."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.data import DataConfig, SyntheticData
from kd_edge.models import ModelConfig
from kd_edge.preprocess import Preprocess

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Augment(_Strict):
    """Random changes of a training clip; teacher and student share all but the intensity changes.

    Attributes:
        crop_scale: Range of the square crop's side, as a share of the frame's shorter side.
        shift: Furthest offset of the crop's centre, as a share of the frame's sides; the crop stays inside the frame.
        flip: Mirror half of the clips; refused where the data set does not allow it.
        gain: The intensity window's width changes by up to this share.
        offset: The intensity window moves by up to this share of its width.
        noise: Standard deviation of Gaussian noise on the network's input.
        colour: Three-channel clips get their channels shuffled and mixed with the mean by a random share up to this;
            clothing and walls must not identify a clip.
    """

    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.66, 1.0)
    shift: Share = 1.0
    flip: bool = False
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    offset: Annotated[float, Field(ge=0, lt=1)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0
    colour: Share = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale needs its smaller value first")
        return self


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


class SoftTargetLoss(_Strict):
    """Hinton's soft targets, see ``losses.soft_target``."""

    kind: Literal["soft_target"] = "soft_target"
    weight: Positive = 1.0
    temperature: Positive = 4.0


class DkdLoss(_Strict):
    """Decoupled knowledge distillation, see ``losses.dkd``; ``weight`` is the paper's alpha.

    Attributes:
        weight: Of the whole term in the total loss.
        target_weight: alpha_T.
        nontarget_weight: alpha_N.
        temperature: Not given in the paper; 4 as in the reference implementation of DKD.
        warmup_epochs: The weight rises linearly over that many epochs; the paper has none.
    """

    kind: Literal["dkd"] = "dkd"
    weight: Positive = 0.1
    target_weight: Annotated[float, Field(ge=0)] = 0.7
    nontarget_weight: Annotated[float, Field(ge=0)] = 0.35
    temperature: Positive = 4.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0


class MgcamLoss(_Strict):
    """Multi-scale graph cross-attention, see ``losses.mgcam``; ``weight`` is the paper's beta.

    Attributes:
        weight: Of the term in the total loss.
        segments: ``mean`` averages a clip's feature maps over its segments, one graph vertex per clip; ``fold`` makes
            every segment a vertex of its own.
        scale: Distance of the sample graphs.
        tau: Factor on the attention's logits.
        reduction: Over the elements of a map.
        pairs: Which stages are compared.
        align: How different channel counts are compared.
        detach_attention: Keep the gradient out of the attention.
    """

    kind: Literal["mgcam"] = "mgcam"
    weight: Positive = 1.0
    segments: Literal["mean", "fold"] = "mean"
    scale: Literal["mean", "l2norm", "median", "sum"] = "mean"
    tau: Positive = 1.0
    reduction: Literal["sum", "mean"] = "sum"
    pairs: Literal["matched", "all"] = "matched"
    align: Literal["conv", "channel_mean"] = "conv"
    detach_attention: bool = False


LossConfig = Annotated[SoftTargetLoss | DkdLoss | MgcamLoss, Field(discriminator="kind")]


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
        kinds = [loss.kind for loss in self.losses]
        if len(set(kinds)) != len(kinds):
            raise ValueError("each kind of loss may stand once in losses")
        return self

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the weights; not of where the recordings lie."""
        values = self.model_dump(mode="json", exclude={"name": True, "workers": True, "data": {"root"}})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
