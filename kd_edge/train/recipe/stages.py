"""Settings of how a network is trained, of stages that see images, and of the student."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kd_edge.data import Dataset, Sample
from kd_edge.data.cache.frames import CachedClips, cache_fingerprint, prepare
from kd_edge.errors import ConfigError, DataError, did_you_mean
from kd_edge.models import ModelConfig
from kd_edge.preprocess import Preprocess
from kd_edge.train.recipe.augment import Augment

if TYPE_CHECKING:
    pass

OTHER_LENS = 0.05
"""A crop in metres that differs by a larger share was made for another lens."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

Done = Callable[[int, int], None]
"""Called with (samples done, total samples) while recordings are decoded."""


class Strict(BaseModel):
    """Frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Training(Strict):
    """How a network is trained.

    Attributes:
        weights: Trained weights, with which the stage is not trained: a weights file, or a run directory, of which the
            teacher is used, or the student if the run had no teacher. Only for the teacher.
        optimiser: ``sgd`` (with momentum), ``adam`` (weight decay as part of the gradient) or ``adamw``.
        learning_rate: The peak learning rate.
        momentum: Momentum of SGD; the first beta of Adam.
        weight_decay: Applies to weights, not to biases and normalisation layers.
        schedule: ``step`` multiplies by ``decay`` at intervals; ``one_cycle`` rises over the first 30 % and falls to
            nearly 0, both as a cosine.
        decay: Factor of ``step``.
        decay_epochs: Interval of ``step`` in epochs; None decays after 50 % and 75 % of the steps (TSN).
        epochs: Passes over the training clips.
        batch_size: Clips per step, over all devices together.
        label_smoothing: Share of a label that the cross-entropy spreads over all classes.
        class_weights: Factor of a clip's cross-entropy, including label smoothing. ``balanced`` is n / (K n_k) for n
            training clips, K classes and n_k clips of the clip's class: every class contributes equally to the loss. A
            table gives classes a weight relative to the others. In both cases the mean over the clips is 1, so that
            the learning rate keeps its meaning. Distillation terms are not weighted.
        sampler: ``shuffled`` draws every training clip once per epoch. ``balanced`` draws rounds of one clip per class,
            ceil(n / K) of them, so that there are at least as many draws as clips. All clips of a class are drawn
            before one is drawn again, in a new order each epoch.
        repeat: How often an epoch draws every clip (with ``balanced``: n is this many times larger), each time with
            another window, crop and intensities: small sets then need fewer epochs, validations and saved states.
        bias_rate: Learning rate of the biases (except in normalisation layers) relative to the weights'; 2 in TSN.
        head_rate: Learning rate of the classifier relative to the rest; 5 in TSM. In a fine-tuned student it applies
            to all newly initialised weights.
        clip_gradient: Largest norm of all gradients together, as in TRN (20) and MMAction2 (40); None does not clip.
    """

    weights: Path | None = None
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 5e-4
    schedule: Literal["step", "one_cycle"] = "step"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    decay_epochs: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 8
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1
    bias_rate: Positive = 1.0
    head_rate: Positive = 1.0
    clip_gradient: Positive | None = None

    @field_validator("class_weights", mode="before")
    @classmethod
    def _weighs(cls, given: Any) -> Any:
        if given is None or given == "balanced":
            return given
        numbers = list(given.values()) if isinstance(given, dict) else []
        if not numbers or not all(isinstance(x, (int, float)) and 0 < x < math.inf and x is not True for x in numbers):
            raise ValueError("class_weights must be 'balanced', or a table of class names with a positive number each")
        return given

    @model_validator(mode="after")
    def _balanced_once(self) -> Training:
        if self.class_weights == "balanced" and self.sampler == "balanced":
            raise ValueError(
                "sampler 'balanced' draws every class equally often, so class_weights 'balanced' has no effect: keep "
                "one of them"
            )
        return self

    def check_classes(self, name: str, labels: Sequence[str]) -> None:
        """Check that class weights name only classes of the data set.

        Raises:
            ConfigError: A class is unknown.
        """
        weights = self.class_weights if isinstance(self.class_weights, dict) else {}
        for label in weights:
            if label not in labels:
                raise ConfigError(
                    f"{name}.class_weights names '{label}', which is not a class{did_you_mean(label, labels)}",
                    f"some of {', '.join(labels)}",
                    f"correct {name}.class_weights",
                )


class OfOneModality:
    """Interface of all stages that see images of one modality."""

    modality: str
    preprocess: Preprocess

    @property
    def wearables(self) -> None:
        """None: the stage sees no wearable sensors."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the data set's modalities that the stage sees."""
        return (self.modality,)

    @property
    def has_motion(self) -> bool:
        """Whether the input is a motion stack, which shows several moments at once."""
        return self.preprocess.has_motion

    @property
    def needs_vectors(self) -> str:
        """The setting that needs the class names' vectors; empty, as none does."""
        return ""

    def check_data(self, name: str, dataset: Dataset) -> None:
        """Refuse images whose channels, value type or lens do not fit the settings.

        Raises:
            ConfigError: Settings of another modality than the data set's.
            DataError: No such modality.
        """
        spec = self.preprocess
        form = dataset.image_format(self.modality)
        if form.channels != spec.channels:
            raise ConfigError(
                f"{name}.preprocess.channels is {spec.channels}, {self.modality} of {dataset.name} has {form.channels}",
                "the same number",
                f"set {name}.preprocess.channels={form.channels}",
            )
        region, (lowest, highest) = spec.region, form.value_range
        if region.kind != "frame" and (region.low > highest or region.high < lowest):
            raise ConfigError(
                f"{name}.preprocess.region looks for values from {region.low} to {region.high}",
                f"values of {self.modality}, {lowest:g} to {highest:g}",
                f"set {name}.preprocess.region.low and {name}.preprocess.region.high",
            )
        made_for, seen_with = spec.focal, form.focal
        if made_for is not None and seen_with is not None and abs(seen_with / made_for - 1) > OTHER_LENS:
            raise ConfigError(
                f"{name}.preprocess.region.focal is {made_for:g}, {self.modality} of {dataset.name} was seen with "
                f"{seen_with:g}",
                "the focal length of the recordings, because the region is given in metres",
                f"set {name}.preprocess.region.focal={seen_with:g}, or correct dataset.toml",
            )


class StageConfig(OfOneModality, Training):
    """A network on an image modality, and its training.

    Attributes:
        modality: Image modality of the data set.
        model: Architecture.
        preprocess: Conversion of a recorded frame to network input.
        augment: Random changes in training.
        initial_weights: Initial weights of the backbone: None (random), ``"imagenet"``, a state-dict file, or a run
            directory, whose student's backbone is used.
    """

    modality: str
    model: ModelConfig = ModelConfig()
    preprocess: Preprocess = Preprocess()
    augment: Augment = Augment()
    initial_weights: str | None = None

    @model_validator(mode="after")
    def _crops_fit(self) -> StageConfig:
        if self.preprocess.region.kind != "person" and (self.augment.crop_scale[1] > 1 or self.augment.aspect):
            raise ValueError("augment.crop_scale above 1 and augment.aspect are for preprocess.region.kind = 'person'")
        return self

    @property
    def images(self) -> StageConfig:
        """These settings: the stage sees images."""
        return self

    @property
    def architecture(self) -> dict[str, str]:
        """Names of the backbone and of the temporal head, for reports."""
        return {"backbone": self.model.backbone, "temporal": self.model.temporal}

    @property
    def trained_for(self) -> dict[str, Any]:
        """Settings, besides the network's shape, for which the trained weights are valid: none."""
        return {}

    def clip_shape(self, segments: int) -> tuple[int, ...]:
        """The network's input for one clip, (T, C, S, S)."""
        return segments, self.preprocess.input_channels, self.preprocess.input_px, self.preprocess.input_px

    def check_data(self, name: str, dataset: Dataset) -> None:
        """Check that a data set fits the stage, ``student`` or ``teacher``.

        Raises:
            ConfigError: Settings do not fit the data set's modality.
            DataError: There is no such modality, or clips are mirrored that must not be.
        """
        super().check_data(name, dataset)
        if self.preprocess.channels != 3 and (self.augment.colour or self.augment.saturation):
            raise ConfigError(
                f"{name}.augment changes colours, but {self.modality} of {dataset.name} has none",
                "colour and saturation only with three channels",
                f"set {name}.augment.colour=0 and {name}.augment.saturation=0",
            )
        if self.augment.flip and dataset.flip_labels is None:
            raise DataError(
                f"{name}.augment.flip with {dataset.name}",
                "a data set whose actions may be mirrored",
                f"set {name}.augment.flip=false",
            )

    def load(self, dataset: Dataset, samples: Sequence[Sample], every: int, done: Done) -> CachedClips:
        """Load the stage's inputs: a frame cache of every n-th frame of the samples."""
        spec = self.preprocess
        seen, settings = (dataset, samples, self.modality), (spec.resize_px, spec.window)
        return prepare(*seen, *settings, progress=done, every=every, region=spec.region, holes=spec.holes)

    def data_fingerprint(self, dataset: Dataset, every: int, unlabelled: Sequence[Sample] = ()) -> str:
        """Return the SHA-256 (hex) of ``load`` for all samples, labelled and unlabelled, without decoding them."""
        spec, samples = self.preprocess, (*dataset.samples, *unlabelled)
        seen, settings = (dataset, samples, self.modality), (spec.resize_px, spec.window)
        return cache_fingerprint(*seen, *settings, every=every, region=spec.region, holes=spec.holes)


class StudentConfig(StageConfig):
    """The student, which is always trained.

    Attributes:
        source: Source of fine-tuning, of which the backbone, the temporal head and the classifier rows of classes with
            the same name are used: a finished run's folder, an artifact (``.onnx``), ``bundled`` for the student that
            kd-edge ships, or a weights file. None starts from ``initial_weights``.
        source_sha256: Hash of the source's weights file; a run records it at its start and resumes with no other.
        freeze: Parts of the backbone that are not trained, including their normalisation statistics: ``backbone`` for
            all of it, or some of its stages (``kd-edge recipes layers`` names their last layers).
    """

    source: Annotated[str, Field(min_length=1)] | None = None
    source_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    freeze: Literal["backbone"] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @field_validator("freeze", mode="before")
    @classmethod
    def _of_stages(cls, value: Any) -> Any:
        """Accept a single stage without brackets, as given with ``--set``."""
        return (value,) if isinstance(value, str) and value != "backbone" else value

    @model_validator(mode="after")
    def _trained(self) -> StudentConfig:
        if self.weights is not None:
            raise ValueError("weights is for the teacher; a student starts from source or initial_weights")
        if self.source is not None and self.initial_weights is not None:
            raise ValueError(
                "source and initial_weights both say what the backbone starts from: keep one "
                "(--set student.initial_weights=null)"
            )
        if self.source is None and self.source_sha256 is not None:
            raise ValueError("source_sha256 without a source: name the source, or remove the hash")
        if self.freeze is not None and self.source is None and self.initial_weights is None:
            raise ValueError("freeze needs pretrained weights: name a source (--from) or initial_weights")
        return self
