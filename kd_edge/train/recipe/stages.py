"""The stages of a recipe: which network is trained on which modality, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from kd_edge.data import Dataset, Sample, SignalFormat, Wearables
from kd_edge.data.cache.frames import CachedClips, cache_fingerprint, prepare
from kd_edge.data.signals.load import Signals, load_signals, signals_fingerprint
from kd_edge.errors import ConfigError, DataError, did_you_mean
from kd_edge.models import ModelConfig
from kd_edge.models.config import SensorModelConfig, fitting_points
from kd_edge.preprocess import Preprocess
from kd_edge.train.options import Reduction
from kd_edge.train.recipe.augment import Augment, SignalJitter

if TYPE_CHECKING:
    from kd_edge.train.inputs.embeddings import Embeddings

OTHER_LENS = 0.05
"""A crop in metres that is wrong by a larger share was made for another lens."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

Done = Callable[[int, int], None]
"""Called with (samples done, samples in all) while recordings are decoded."""


class Strict(BaseModel):
    """Frozen; refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Training(Strict):
    """How a network is trained.

    Attributes:
        weights: Trained weights; the stage is not trained then. A file of weights, or a run directory whose teacher is
            taken, or its student where it had no teacher. Only for the teacher.
        optimiser: ``sgd`` (with momentum), ``adam`` (weight decay as part of the gradient) or ``adamw``.
        learning_rate: The highest one.
        momentum: Momentum of SGD; the first beta of Adam.
        weight_decay: On weights; biases and normalisation layers have none.
        schedule: ``step`` multiplies by ``decay`` again and again; ``one_cycle`` rises over the first 30 % and falls to
            nearly 0, both as a cosine.
        decay: Factor of ``step``.
        decay_epochs: ``step`` decays every so many epochs; None after 50 % and 75 % of the steps (TSN).
        epochs: Passes over the training clips.
        batch_size: Clips per step, over all devices together.
        label_smoothing: Share of a label that the cross-entropy spreads over all classes.
        class_weights: What a clip's cross-entropy, label smoothing included, is multiplied by. ``balanced`` is
            n / (K n_k), of n training clips n_k of the clip's class and K classes: every class adds as much to the
            loss. A table names classes and how much more than the others they count for. Both have the mean 1 over the
            clips, so the learning rate stays what it was. Distillation terms are not weighted.
        sampler: ``shuffled`` draws every training clip once an epoch; ``balanced`` draws in rounds of one clip of every
            class, as many rounds as make at least as many draws as there are clips: ceil(n / K). Of a class every clip
            has its turn before one comes again, in a new order each epoch.
        repeat: How often an epoch draws every clip (with ``balanced``: n is so many times larger), each time with
            another window, crop and intensities: small sets then need fewer epochs, validations and saved states.
        bias_rate: Learning rate of the biases (normalisation layers excepted) relative to the weights'; TSN's is 2.
        head_rate: Learning rate of the classifier relative to the rest; TSM's is 5. In a fine-tuned student also that
            of everything else that begins anew.
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
            raise ValueError("class_weights is 'balanced', or a table of class names with a positive number each")
        return given

    @model_validator(mode="after")
    def _balanced_once(self) -> Training:
        if self.class_weights == "balanced" and self.sampler == "balanced":
            raise ValueError(
                "sampler 'balanced' draws every class equally often, so class_weights 'balanced' has nothing left to "
                "weigh: keep one of them"
            )
        return self

    def check_classes(self, name: str, labels: Sequence[str]) -> None:
        """Refuse weights of classes that the data set does not have.

        Raises:
            ConfigError: Names the first one.
        """
        weights = self.class_weights if isinstance(self.class_weights, dict) else {}
        for label in weights:
            if label not in labels:
                raise ConfigError(
                    f"{name}.class_weights names '{label}', which is no class{did_you_mean(label, labels)}",
                    f"some of {', '.join(labels)}",
                    f"correct {name}.class_weights",
                )


class _OfOneModality:
    """What all stages say of themselves that see the images of one modality."""

    modality: str
    preprocess: Preprocess

    @property
    def wearables(self) -> None:
        """The stage sees no wearable sensors."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of everything of the data set that the stage sees."""
        return (self.modality,)

    @property
    def has_motion(self) -> bool:
        """Whether what is shown them sees several moments at once, a motion stack."""
        return self.preprocess.has_motion

    @property
    def needs_vectors(self) -> str:
        """Which setting compares with the class names' vectors: none."""
        return ""


class StageConfig(_OfOneModality, Training):
    """A network on an image modality, and its training.

    Attributes:
        modality: Image modality of the data set.
        model: Architecture.
        preprocess: Recorded frame to network input.
        augment: Random changes in training.
        initial_weights: What the backbone starts from: None (random), ``"imagenet"``, a state-dict file, or a run
            directory, whose student's backbone is taken.
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
        """Network and what joins its inputs, for reports."""
        return {"backbone": self.model.backbone, "temporal": self.model.temporal}

    @property
    def trained_for(self) -> dict[str, Any]:
        """What the trained weights hold for beside the network's shape, setting by setting: nothing."""
        return {}

    def clip_shape(self, segments: int) -> tuple[int, ...]:
        """The network's input for one clip, (T, C, S, S)."""
        return segments, self.preprocess.input_channels, self.preprocess.input_px, self.preprocess.input_px

    def check_data(self, name: str, dataset: Dataset) -> None:
        """Refuse a data set that does not have what the stage, ``student`` or ``teacher``, asks for.

        Raises:
            ConfigError: Settings of another modality than the data set's.
            DataError: No such modality, or clips are mirrored that must not be.
        """
        _check_images(name, self.modality, self.preprocess, dataset)
        if self.preprocess.channels != 3 and (self.augment.colour or self.augment.saturation):
            raise ConfigError(
                f"{name}.augment changes colours, {self.modality} of {dataset.name} has none",
                "colour and saturation only for three channels",
                f"set {name}.augment.colour=0 and {name}.augment.saturation=0",
            )
        if self.augment.flip and dataset.flip_labels is None:
            raise DataError(
                f"{name}.augment.flip with {dataset.name}",
                "a data set whose actions may be mirrored",
                f"set {name}.augment.flip=false",
            )

    def load(self, dataset: Dataset, samples: Sequence[Sample], every: int, done: Done) -> CachedClips:
        """What the stage sees of the samples: a frame cache, of every so-manieth frame."""
        spec = self.preprocess
        seen, settings = (dataset, samples, self.modality), (spec.resize_px, spec.window)
        return prepare(*seen, *settings, progress=done, every=every, region=spec.region, holes=spec.holes)

    def data_fingerprint(self, dataset: Dataset, every: int, unlabelled: Sequence[Sample] = ()) -> str:
        """SHA-256 (hex) that ``load`` of all samples, and of those without a label, has or would have.

        Nothing is decoded.
        """
        spec, samples = self.preprocess, (*dataset.samples, *unlabelled)
        seen, settings = (dataset, samples, self.modality), (spec.resize_px, spec.window)
        return cache_fingerprint(*seen, *settings, every=every, region=spec.region, holes=spec.holes)


class StudentConfig(StageConfig):
    """The student: always trained.

    Attributes:
        source: What it is fine-tuned from, backbone, temporal head and the rows of classes of the same name: a finished
            run's folder, an artifact (``.onnx``), ``bundled`` for the student that kd-edge ships, or a file of weights.
            None begins with ``initial_weights``.
        source_sha256: Of the source's file of weights; a run notes it when it begins and goes on from no other.
        freeze: What of the backbone is not trained, its normalisation's statistics included: ``backbone`` for all of
            it, or some of its stages (``kd-edge recipes layers`` names their ends).
    """

    source: Annotated[str, Field(min_length=1)] | None = None
    source_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    freeze: Literal["backbone"] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @field_validator("freeze", mode="before")
    @classmethod
    def _of_stages(cls, value: Any) -> Any:
        """One stage may stand without its brackets, as behind ``--set``."""
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
            raise ValueError("source_sha256 without a source: name it, or leave the hash out")
        if self.freeze is not None and self.source is None and self.initial_weights is None:
            raise ValueError("freeze is of weights that are given: name a source (--from) or initial_weights")
        return self


class TeacherConfig(StageConfig):
    """A teacher that sees images: the MGCAM paper's differs from its student in backbone and batch size."""

    kind: Literal["images"] = "images"
    model: ModelConfig = ModelConfig(backbone="resnet50")
    batch_size: Annotated[int, Field(ge=1)] = 16


class SensorTeacherConfig(Training):
    """Wearable sensors as teachers: a network each, trained together (the SAKDN paper's, Eq. 20).

    Attributes:
        sensors: Names of sensors of the data set; one network each.
        points: n, length of a signal after resampling onto the clip's time, and side of its virtual image; a multiple
            of 32, for networks on signals 32 or more.
        scaling: By what a signal is scaled: ``sample`` its own lowest and highest value in this clip (Eq. 1), which
            loses its size and offset, gravity's direction among them; ``sensor`` the sensor's range.
        interval: What it is scaled to: ``signed`` is [-1, 1] (Eq. 1), where a field tells x from -x only by its
            neighbours; ``unit`` is [0, 1], where it tells every value.
        ranges: Sensor -> lowest and highest value for ``sensor`` scaling, instead of all that the sensor can tell.
        model: Architecture of the networks.
        jitter: Random changes of the signals in training.
        semantic_weight: Factor of the semantic preserving loss (Eq. 19) in the total; 0 leaves it out.
        semantic_reduction: Over the elements of fc2: ``mean`` as the official code, ``sum`` as the equation.
    """

    kind: Literal["sensors"] = "sensors"
    sensors: Annotated[tuple[str, ...], Field(min_length=1)]
    points: Annotated[int, Field(ge=1, le=1024)] = 224
    scaling: Literal["sample", "sensor"] = "sample"
    interval: Literal["signed", "unit"] = "signed"
    ranges: dict[str, tuple[float, float]] = {}
    model: SensorModelConfig = SensorModelConfig()
    jitter: SignalJitter = SignalJitter()
    semantic_weight: NotNegative = 1.0
    semantic_reduction: Reduction = "mean"
    optimiser: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: Positive = 2e-4
    weight_decay: NotNegative = 1e-5
    decay: Annotated[float, Field(gt=0, le=1)] = 0.5
    decay_epochs: Annotated[int, Field(ge=1)] | None = 50
    epochs: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=1)] = 16

    @model_validator(mode="after")
    def _consistent(self) -> SensorTeacherConfig:
        if len(set(self.sensors)) != len(self.sensors):
            raise ValueError(f"sensors {list(self.sensors)} names one twice")
        unknown = sorted(set(self.ranges) - set(self.sensors))
        if unknown:
            raise ValueError(f"ranges has '{unknown[0]}', which is not one of the sensors {list(self.sensors)}")
        if any(low >= high for low, high in self.ranges.values()):
            raise ValueError("ranges need their lower value first")
        if self.ranges and self.scaling == "sample":
            raise ValueError("ranges say nothing with scaling = 'sample': set scaling = 'sensor', or drop them")
        network, fitting = self.model.network, fitting_points(self.model.network, self.points)
        if self.points != fitting:
            raise ValueError(f"points {self.points} do not fit network '{network}': set points to {fitting}")
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: the networks normalise over the batch")
        return self

    @property
    def images(self) -> None:
        """The stage sees no images."""

    @property
    def wearables(self) -> SensorTeacherConfig:
        """These settings: the stage sees wearable sensors."""
        return self

    @property
    def modality(self) -> str:
        """The sensors' names, for reports."""
        return " + ".join(self.sensors)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of everything of the data set that the stage sees."""
        return self.sensors

    @property
    def architecture(self) -> dict[str, str]:
        """Network and what joins its inputs, for reports."""
        model = self.model
        return {"backbone": model.network, "temporal": f"SPAMFM ({model.variant})" if model.fusion else "no fusion"}

    @property
    def has_motion(self) -> bool:
        """Whether the networks see several moments at once: a signal has no frames that could be left out."""
        return False

    @property
    def needs_vectors(self) -> str:
        """Which setting compares with the class names' vectors while the networks are trained; empty for none."""
        return "teacher.semantic_weight" if self.weights is None and self.semantic_weight else ""

    @property
    def trained_for(self) -> dict[str, Any]:
        """What the trained weights hold for, setting by setting; how they were trained to them is not asked."""
        values = self.model_dump(mode="json")
        own = {name: values[name] for name in ("sensors", "points", "scaling", "interval", "ranges")}
        return own | {f"model.{name}": value for name, value in values["model"].items() if name != "similarity"}

    def clip_shape(self, segments: int) -> tuple[int, ...]:
        """The networks' input for one clip, (m, 3, n)."""
        return len(self.sensors), 3, self.points

    def formats(self, dataset: Dataset) -> list[SignalFormat]:
        """Unit, range and rate of each sensor's signal in a data set.

        Raises:
            ConfigError: A data set without wearable sensors.
            DataError: It lacks one of them.
        """
        if not isinstance(dataset, Wearables):
            raise ConfigError(
                f"teacher.kind 'sensors' with {dataset.name}, which has no wearable sensors",
                "utd_mhad, berkeley_mhad, mmact or synthetic",
                "change data.kind, or teach with images",
            )
        return [dataset.signal_format(sensor) for sensor in self.sensors]

    def check_data(self, name: str, dataset: Dataset) -> None:
        """Refuse a data set that does not have the sensors, see ``formats``."""
        self.formats(dataset)

    def load(self, dataset: Dataset, samples: Sequence[Sample], every: int, done: Done) -> Signals:
        """What the stage sees of the samples: the sensors' signals, whole."""
        return load_signals(dataset, samples, self.sensors, progress=done)

    def data_fingerprint(self, dataset: Dataset, every: int) -> str:
        """SHA-256 (hex) that ``load`` of all samples has or would have; nothing is decoded."""
        return signals_fingerprint(dataset, dataset.samples, self.sensors)


class OnnxTeacherConfig(_OfOneModality, Strict):
    """A frozen image encoder in an ONNX file as teacher, DINOv2 for example: it is never trained.

    It sees every frame once, whole or its centre as evaluation does, and what it makes of them is kept in the cache.
    What is cropped or mirrored in the student's picture does not change it. Clips without the modality learn without
    it. It knows no classes: what learns from it are dense targets ``features``, and losses on features.

    Attributes:
        file: The graph: float32 images (batch, C, S, S) to embeddings (batch, D), tokens (batch, N, D) or maps
            (batch, D, H, W); of tokens and maps the mean is taken. It holds its weights itself, at most 2 GB.
        modality: Image modality of the data set: the student's camera or another one.
        preprocess: Recorded frame to the encoder's images.
        output: Which of the graph's outputs; None takes the only one.
        batch_size: Images at once, where the graph leaves that free.
    """

    kind: Literal["onnx"] = "onnx"
    file: Path
    modality: str
    preprocess: Preprocess = Preprocess()
    output: str | None = None
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 16

    @property
    def weights(self) -> Path:
        """It is given, not trained."""
        return self.file

    @property
    def images(self) -> None:
        """The stage's clips are no input of a network in training."""

    @property
    def architecture(self) -> dict[str, str]:
        """Network and what joins its inputs, for reports."""
        return {"backbone": self.file.stem, "temporal": "frozen encoder"}

    @property
    def epochs(self) -> int:
        """It is never trained."""
        return 0

    @property
    def trained_for(self) -> dict[str, Any]:
        """What its weights hold for: its file says it all."""
        return {}

    def clip_shape(self, segments: int) -> tuple[int, ...]:
        """What a loss sees of one clip, embeddings (T, D).

        Raises:
            TrainingError: The file is refused.
        """
        from kd_edge.train.inputs.embeddings import embedding_size  # torch is imported where it computes

        return segments, embedding_size(self)

    def check_data(self, name: str, dataset: Dataset) -> None:
        """Refuse a data set that does not have what the encoder sees.

        Raises:
            ConfigError: Another number of channels.
            DataError: No such modality.
        """
        _check_images(name, self.modality, self.preprocess, dataset)

    def check_classes(self, name: str, labels: Sequence[str]) -> None:
        """It has no classes."""

    def load(self, dataset: Dataset, samples: Sequence[Sample], every: int, done: Done) -> Embeddings:
        """What the encoder makes of the samples, of every so-manieth frame."""
        from kd_edge.train.inputs.embeddings import embed_clips

        return embed_clips(self, dataset, samples, every, done)

    def data_fingerprint(self, dataset: Dataset, every: int, unlabelled: Sequence[Sample] = ()) -> str:
        """SHA-256 (hex) that ``load`` of all samples, and of those without a label, has or would have.

        Nothing is decoded.
        """
        from kd_edge.train.inputs.embeddings import embeddings_fingerprint

        return embeddings_fingerprint(self, dataset, (*dataset.samples, *unlabelled), every)


def _check_images(name: str, modality: str, spec: Preprocess, dataset: Dataset) -> None:
    """Refuse images of other channels, or of other values than their region is found by."""
    form = dataset.image_format(modality)
    if form.channels != spec.channels:
        raise ConfigError(
            f"{name}.preprocess.channels is {spec.channels}, {modality} of {dataset.name} has {form.channels}",
            "the same number",
            f"set {name}.preprocess.channels={form.channels}",
        )
    region, (lowest, highest) = spec.region, form.value_range
    if region.kind != "frame" and (region.low > highest or region.high < lowest):
        raise ConfigError(
            f"{name}.preprocess.region looks for values from {region.low} to {region.high}",
            f"values of {modality}, {lowest:g} to {highest:g}",
            f"set {name}.preprocess.region.low and {name}.preprocess.region.high",
        )
    made_for, seen_with = spec.focal, form.focal
    if made_for is not None and seen_with is not None and abs(seen_with / made_for - 1) > OTHER_LENS:
        raise ConfigError(
            f"{name}.preprocess.region.focal is {made_for:g}, {modality} of {dataset.name} was seen with {seen_with:g}",
            "the focal length of the recordings: the region is so many metres wide",
            f"set {name}.preprocess.region.focal={seen_with:g}, or correct dataset.toml",
        )


def _kind(value: Any) -> str:
    """A teacher sees images unless it says otherwise."""
    given = value.get("kind", "images") if isinstance(value, dict) else getattr(value, "kind", "images")
    return str(given)


TrainedTeacher = TeacherConfig | SensorTeacherConfig
AnyTeacher = Annotated[
    Annotated[TeacherConfig, Tag("images")]
    | Annotated[SensorTeacherConfig, Tag("sensors")]
    | Annotated[OnnxTeacherConfig, Tag("onnx")],
    Discriminator(_kind),
]
Stage = StudentConfig | TrainedTeacher | OnnxTeacherConfig
