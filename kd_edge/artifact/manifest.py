"""What an artifact says of itself: labels, preprocessing, window, states, figures."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kd_edge.errors import ArtifactError, printable, reason
from kd_edge.health import FeatureReference, PictureBounds
from kd_edge.preprocess import Preprocess

FORMAT = 1


MANIFEST_KEY = "kd_edge"


GOLDEN_KEY = "kd_edge_golden"


GOLDEN_BYTES = 400_000
"""The golden clip takes at most this many bytes of the file."""


MANIFEST_BYTES = 4_000_000
"""The manifest takes at most this many bytes of the file."""


SOURCE_BYTES = 256_000_000
"""A model whose arrays take more memory than this for one source is refused before any is made."""


_FAULT_CHARACTERS = 200
_ROWS_PER_SPACING, _ROWS_PER_HISTORY = 33, 19
"""Features and planes that a stream keeps at most (``kd_edge.runtime.memory``)."""


UNCALIBRATED = (
    "uncalibrated: no recordings were held out to fit temperature and unknown threshold; a confidence may be far off"
)
"""What is said of a model whose ``calibrated_on`` is empty."""


class ForeignFileError(ArtifactError):
    """Not a file of kd-edge at all: not ONNX, or without a manifest."""


Band = Literal["nir", "lwir", "depth", "rgb"]


Precision = Literal["fp32", "fp16", "int8", "int8-tensorrt"]
"""Arithmetic inside a graph; its inputs and outputs are float32 in every precision."""


def _shown_as_it_is(label: str) -> str:
    if not label.strip():
        raise ValueError("a label is blank")
    if label != printable(label):
        raise ValueError("a label holds control characters")
    return label


Label = Annotated[str, Field(max_length=200), AfterValidator(_shown_as_it_is)]
"""The name of an action: not blank, and nothing in it that steers a terminal."""


def fault(error: Exception) -> str:
    """What is wrong with a text of an artifact, in a few words: of many faults the first."""
    if not isinstance(error, ValidationError):
        return reason(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:_FAULT_CHARACTERS].removeprefix(": ")


class StageFigures(BaseModel):
    """One stage of an export on the same clips: the trained model, or an engine with the graph of a precision.

    Attributes:
        stage: ``torch``, ``onnx`` (the float32 graph), a precision, or what the artifact carries for another engine.
        engine: What ran it, with its version.
        max_abs_error: Largest difference of a logit from the trained model's; infinite when one is not finite.
        relative_error: Norm of all differences by the norm of the trained model's logits.
        flips: Clips whose class differs from the stage before.
        accuracy: Share of clips whose class is right.
        macro_f1: See ``kd_edge.metrics.macro_f1``.
        per_class: Recall of each class, in the order of the labels; None for a class without a clip.
        ece: Calibration error, 15 bins, at the manifest's temperature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)
    stage: str
    engine: str
    max_abs_error: float
    relative_error: float
    flips: int
    accuracy: float
    macro_f1: float
    per_class: tuple[float | None, ...] = Field(max_length=10_000)
    ece: float


class StreamFigures(BaseModel):
    """The shipped graph against the float32 one, frame by frame of a stream.

    Intervals are of 95 %, by whole clips drawn with replacement; the agreement's is at least as wide as Wilson's over
    the frames taken as independent, so that it has a width where nothing differs. The change's has none there.

    Attributes:
        clips: Clips that were joined into streams.
        frames: Frames with a label.
        agreement: Share of frames with the same class, and its interval.
        accuracy: Share of frames with the right class, of the shipped graph.
        accuracy_change: Accuracy less that of the float32 graph, and its interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    clips: int
    frames: int
    agreement: float
    agreement_interval: tuple[float, float]
    accuracy: float
    accuracy_change: float
    accuracy_change_interval: tuple[float, float]


class Parity(BaseModel):
    """How closely the exported graph reproduced the torch model on real frames.

    Attributes:
        max_abs_error: Largest difference of a logit, of the last stage.
        argmax_agreement: Share of clips with the trained model's class, of the last stage.
        clips: Clips that were compared.
        tolerance: What ``max_abs_error`` was held to.
        side: Whose clips they are.
        stages: From the trained model to what ships.
        stream: Frame by frame; None of float32 graphs and of clip graphs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_abs_error: float
    argmax_agreement: float
    clips: int
    tolerance: float
    side: str = "test clips"
    stages: tuple[StageFigures, ...] = Field((), max_length=16)
    stream: StreamFigures | None = None


class ActivationRanges(BaseModel):
    """Where the ranges of quantised activations come from.

    Attributes:
        side: Whose clips.
        clips: Their ids.
        frames: Frames of them that ran through the network.
        method: How a range was made of what was seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    side: str
    clips: tuple[str, ...] = Field(max_length=10_000)
    frames: int
    method: str


class StateSpec(BaseModel):
    """A recurrent tensor of the step, the i-th as ``state_in_i`` and ``state_out_i``; zeros before the first frame.

    Attributes:
        name: Module path of the layer that carries it.
        shape: Shape of the tensor without the batch axis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = Field(max_length=8)


class AddedClass(BaseModel):
    """A class that was added to a finished artifact (``kd-edge adapt``).

    Attributes:
        label: Its name, one of the last of the labels.
        parent_sha256: ``sha256`` of the artifact that it was added to.
        clips: Recordings it was fitted on.
        shorter: Recordings that were left out, as shorter than a window.
        empty: Recordings that were left out, as there was nothing to see.
        windows: Windows of them.
        accuracy: Share of these recordings that are named right by what was fitted without them.
        folds: What was left out in turn: ``clips`` or ``subjects``.
        nearest: The class that is told apart from it worst.
        separation: By how many standard deviations of each side both lie apart from the limit between them.
        familiar: Share of windows that are familiar by a mean fitted without them; None where the model knows none.
        healthy: Share of windows whose pictures are like those of the training.
        kept_clips: Recordings of the other classes that it was proved on.
        kept_accuracy: Share of these named right before and after; None without any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    label: Label
    parent_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    clips: int = Field(ge=1)
    shorter: int = Field(0, ge=0)
    empty: int = Field(0, ge=0)
    windows: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1)
    folds: Literal["clips", "subjects"]
    nearest: Label
    separation: float
    familiar: float | None = Field(None, ge=0, le=1)
    healthy: float = Field(1.0, ge=0, le=1)
    kept_clips: int = Field(0, ge=0)
    kept_accuracy: tuple[float, float] | None = None


class Manifest(BaseModel):
    """What a robot must know to run the graph.

    Attributes:
        dtype: Pixel type of the camera's frames.
        value_unit: What a raw value measures ("grey level", "mm").
        value_range: Raw values the camera delivers, inclusive.
        segments: Number T of segments in a window.
        clip_seconds: Length of the window; segments lie ``clip_seconds / segments`` apart.
        feature_size: Length D of one frame's feature.
        temporal: Kind of the temporal model.
        states: What one step hands to the next inside the backbone, one segment spacing later; empty for most kinds.
        graph: ``step`` (one new frame per run), ``clip`` (T frames per run) or ``backbone`` (a frame to its feature,
            what a benchmark compares a step with).
        precision: Arithmetic inside the graph.
        kept_float32: Nodes of a lower precision that stayed in float32, and why.
        ranges: Where the ranges of quantised activations come from; None of a graph without any.
        temperature: Divides the logits before the softmax.
        unknown_threshold: Confidence below it makes the label ``unknown``.
        calibrated_on: Whose clips temperature and threshold were fitted on; empty when they were not: confidences are
            then what the network happens to say.
        dataset: Settings of the data set it was trained on, so that ``kd-edge evaluate`` finds it; no folders.
        split: Name of the data set's split that it was trained on.
        health: What pictures must be like to be judged; None judges none.
        familiar: What features of familiar windows are like; None takes any.
        segment_error_ms: How far frames of the training recordings lay from their segments' moments at worst, in three
            of four recordings: gaps as uneven as theirs are what the model knows. 0 says nothing.
        added: Classes added since it was trained, the last of the labels in their order; figures of the training
            (``accuracy``, ``parity``) are of the others.
        sha256: SHA-256 (hex) of all bytes before the manifest entry.
        manifest_sha256: SHA-256 (hex) of this manifest as JSON with an empty ``manifest_sha256``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    format: int = FORMAT
    name: str
    labels: tuple[Label, ...] = Field(min_length=2, max_length=10_000)
    modality: str
    band: Band
    dtype: Literal["uint8", "uint16"]
    value_unit: str
    value_range: tuple[float, float]
    preprocess: Preprocess
    segments: int = Field(ge=1, le=1024)
    clip_seconds: float = Field(ge=0.001, le=3600)
    feature_size: int = Field(ge=1, le=1 << 20)
    temporal: Literal["tsn", "tconv", "tcn", "trn", "tsm", "tsm_causal"]
    states: tuple[StateSpec, ...] = Field((), max_length=1024)
    graph: Literal["step", "clip", "backbone"] = "step"
    precision: Precision = "fp32"
    kept_float32: dict[str, str] = Field({}, max_length=100_000)
    ranges: ActivationRanges | None = None
    temperature: float = Field(1.0, gt=0)
    unknown_threshold: float = Field(0.0, ge=0, le=1)
    calibrated_on: str = ""
    accuracy: dict[str, float] = Field({}, max_length=1000)
    dataset: dict[str, Any] = {}
    split: str = ""
    parity: Parity | None = None
    health: PictureBounds | None = None
    familiar: FeatureReference | None = None
    segment_error_ms: float = Field(0.0, ge=0, le=1.8e6)
    added: tuple[AddedClass, ...] = Field((), max_length=1000)
    recipe_fingerprint: str = ""
    data_fingerprint: str = ""
    versions: dict[str, str] = Field({}, max_length=1000)
    sha256: str = ""
    manifest_sha256: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("two labels are the same")
        if tuple(one.label for one in self.added) != self.labels[len(self.trained_labels) :]:
            raise ValueError("the added classes are not the last of the labels")
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range {self.value_range} must increase")
        if self.familiar is not None:
            found = f"familiar: {self.familiar.classes} classes of {self.familiar.size} values"
            if self.familiar.classes > len(self.labels) or self.familiar.size != self.feature_size:
                raise ValueError(f"{found} for {len(self.labels)} labels and features of {self.feature_size}")
        if self.source_bytes > SOURCE_BYTES:
            raise ValueError(f"its arrays take {self.source_bytes:,} bytes, more than {SOURCE_BYTES:,}")
        return self

    @property
    def trained_labels(self) -> tuple[str, ...]:
        """The labels that the student was trained with."""
        return self.labels[: max(0, len(self.labels) - len(self.added))]

    @property
    def source_bytes(self) -> int:
        """Memory that one source takes at most: what the graph reads and writes, kept features and kept planes."""
        spec = self.preprocess
        network_input = spec.input_channels * spec.input_px**2 * (self.segments if self.graph == "clip" else 1)
        states = sum(math.prod(state.shape) for state in self.states)
        features = self.segments * _ROWS_PER_SPACING * self.feature_size
        planes = spec.channels * spec.resize_px**2 * (_ROWS_PER_HISTORY if spec.has_motion else 3)
        return 4 * (network_input + 3 * states + features + planes)

    def own_hash(self) -> str:
        """What ``manifest_sha256`` must be."""
        bare = self.model_copy(update={"manifest_sha256": ""})
        return hashlib.sha256(bare.model_dump_json().encode()).hexdigest()

    @property
    def spacing_ns(self) -> int:
        """Time between two segments, nanoseconds."""
        return round(self.clip_seconds * 1e9 / self.segments)
