"""Kinds of teachers: an image network, wearable sensors with one network each, or an encoder in an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from kd_edge.data import Dataset, Sample, SignalFormat, Wearables
from kd_edge.data.signals.load import Signals, load_signals, signals_fingerprint
from kd_edge.errors import ConfigError
from kd_edge.models import ModelConfig
from kd_edge.models.config import SensorModelConfig, fitting_points
from kd_edge.preprocess import Preprocess
from kd_edge.train.options import Reduction
from kd_edge.train.recipe.augment import SignalJitter
from kd_edge.train.recipe.stages import (
    Done,
    NotNegative,
    OfOneModality,
    Positive,
    StageConfig,
    Strict,
    Training,
)

if TYPE_CHECKING:
    from kd_edge.train.inputs.embeddings import Embeddings


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
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
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
        """Settings for which the trained weights are valid, excluding how they were trained."""
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


class OnnxTeacherConfig(OfOneModality, Strict):
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
        """Not available: the stage trains no network."""

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
        """Settings for which its weights are valid: its file decides all."""
        return {}

    def clip_shape(self, segments: int) -> tuple[int, ...]:
        """What a loss sees of one clip, embeddings (T, D).

        Raises:
            TrainingError: The file is refused.
        """
        from kd_edge.train.inputs.embeddings import embedding_size  # torch is imported where it computes

        return segments, embedding_size(self)

    def check_classes(self, name: str, labels: Sequence[str]) -> None:
        """It has no classes."""

    def load(self, dataset: Dataset, samples: Sequence[Sample], every: int, done: Done) -> Embeddings:
        """What the encoder makes of the samples, of every n-th frame."""
        from kd_edge.train.inputs.embeddings import embed_clips

        return embed_clips(self, dataset, samples, every, done)

    def data_fingerprint(self, dataset: Dataset, every: int, unlabelled: Sequence[Sample] = ()) -> str:
        """SHA-256 (hex) that ``load`` of all samples, and of those without a label, has or would have.

        Nothing is decoded.
        """
        from kd_edge.train.inputs.embeddings import embeddings_fingerprint

        return embeddings_fingerprint(self, dataset, (*dataset.samples, *unlabelled), every)


def _kind(value: Any) -> str:
    """Default to a teacher that sees images."""
    given = value.get("kind", "images") if isinstance(value, dict) else getattr(value, "kind", "images")
    return str(given)


TrainedTeacher = TeacherConfig | SensorTeacherConfig
AnyTeacher = Annotated[
    Annotated[TeacherConfig, Tag("images")]
    | Annotated[SensorTeacherConfig, Tag("sensors")]
    | Annotated[OnnxTeacherConfig, Tag("onnx")],
    Discriminator(_kind),
]
