"""The manifest of an artifact: labels, preprocessing, window, states and figures."""

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
"""Upper limit for the size of the golden clip in the file, in bytes."""


MANIFEST_BYTES = 4_000_000
"""Upper limit for the size of the manifest in the file, in bytes."""


SOURCE_BYTES = 256_000_000
"""A model whose arrays take more memory than this per source is refused before any array is allocated."""


_FAULT_CHARACTERS = 200
_ROWS_PER_SPACING, _ROWS_PER_HISTORY = 33, 19
"""Upper limits for the features and planes that a stream keeps (``kd_edge.runtime.memory``)."""


UNCALIBRATED = (
    "uncalibrated: no recordings were held out to fit temperature and unknown threshold; a confidence may be far off"
)
"""The warning for a model whose ``calibrated_on`` is empty."""


class ForeignFileError(ArtifactError):
    """The file was not written by kd-edge: it is not ONNX, or has no manifest."""


Band = Literal["nir", "lwir", "depth", "rgb"]


Precision = Literal["fp32", "fp16", "int8", "int8-tensorrt"]
"""Arithmetic inside a graph; its inputs and outputs are float32 in every precision."""


def _printable_label(label: str) -> str:
    if not label.strip():
        raise ValueError("a label is blank")
    if label != printable(label):
        raise ValueError("a label contains control characters")
    return label


Label = Annotated[str, Field(max_length=200), AfterValidator(_printable_label)]
"""The name of an action: not blank and without control characters, which could steer a terminal."""


def fault(error: Exception) -> str:
    """Describe briefly why a text in an artifact is invalid: the first fault if there are several."""
    if not isinstance(error, ValidationError):
        return reason(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:_FAULT_CHARACTERS].removeprefix(": ")


class StageFigures(BaseModel):
    """Figures of one stage of an export: the trained model, or an engine running the graph in one precision.

    All stages are measured on the same clips.

    Attributes:
        stage: ``torch``, ``onnx`` (the float32 graph), a precision, or the name of an attachment for another engine.
        engine: Name and version of the engine that ran the stage.
        max_abs_error: Largest difference of a logit from the trained model's; infinite if a logit is not finite.
        relative_error: Norm of all differences divided by the norm of the trained model's logits.
        flips: Number of clips whose class differs from the previous stage.
        accuracy: Share of clips classified correctly.
        macro_f1: See ``kd_edge.metrics.macro_f1``.
        per_class: Recall of each class, in the order of the labels; None for a class without a clip.
        ece: Expected calibration error, 15 bins, at the manifest's temperature.
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
    """The shipped graph compared with the float32 graph, frame by frame over a stream.

    Intervals are 95 % bootstrap intervals over whole clips. The interval of the agreement is at least as wide as
    Wilson's over the frames taken as independent, so that it has a width even if no frame differs; the interval of
    the accuracy change has none in that case.

    Attributes:
        clips: Number of clips that were joined into streams.
        frames: Number of frames with a label.
        agreement: Share of frames with the same class.
        agreement_interval: Interval of the agreement.
        accuracy: Share of frames that the shipped graph classifies correctly.
        accuracy_change: Accuracy of the shipped graph minus that of the float32 graph.
        accuracy_change_interval: Interval of the accuracy change.
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
        max_abs_error: Largest difference of a logit in the last stage.
        argmax_agreement: Share of clips for which the last stage predicts the trained model's class.
        clips: Number of clips compared.
        tolerance: Limit applied to ``max_abs_error``.
        side: Description of the clips, for example ``test clips``.
        stages: All stages from the trained model to the shipped graph.
        stream: Frame-by-frame comparison; None for float32 graphs and clip graphs.
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
    """The calibration data behind the ranges of quantised activations.

    Attributes:
        side: Description of the calibration clips, for example ``training clips``.
        clips: Ids of the calibration clips.
        frames: Number of their frames that ran through the network.
        method: How a range was derived from the observed activations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    side: str
    clips: tuple[str, ...] = Field(max_length=10_000)
    frames: int
    method: str


class StateSpec(BaseModel):
    """A recurrent tensor of the step.

    The i-th is input ``state_in_i`` and output ``state_out_i``; it is zero before the first frame.

    Attributes:
        name: Module path of the layer that owns the state.
        shape: Shape of the tensor without the batch axis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = Field(max_length=8)


class AddedClass(BaseModel):
    """A class that was added to a finished artifact (``kd-edge adapt``).

    Attributes:
        label: Name of the class, at the end of the labels.
        parent_sha256: ``sha256`` of the artifact that the class was added to.
        clips: Number of recordings the class was fitted on.
        shorter: Number of recordings left out because they are shorter than a window.
        empty: Number of recordings left out because they show nothing.
        windows: Number of windows in the fitted recordings.
        accuracy: Cross-validated share of these recordings that are classified correctly.
        folds: Unit left out in each fold: ``clips`` or ``subjects``.
        nearest: The class that is hardest to distinguish from this one.
        separation: Distance of both classes from the boundary between them, in standard deviations of each side.
        familiar: Cross-validated share of windows recognised as familiar; None if the model has no reference.
        healthy: Share of windows whose pictures are like those of the training.
        kept_clips: Number of recordings of the other classes used to check that these are still recognised.
        kept_accuracy: Share of those recordings classified correctly, before and after; None if there are none.
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
    """Everything a robot needs to know to run the graph.

    Attributes:
        dtype: Pixel type of the camera's frames.
        value_unit: What a raw value measures ("grey level", "mm").
        value_range: Raw values the camera delivers, inclusive.
        segments: Number T of segments in a window.
        clip_seconds: Length of the window; segments lie ``clip_seconds / segments`` apart.
        feature_size: Length D of one frame's feature.
        temporal: Kind of the temporal model.
        states: Tensors that one step passes to the step one segment spacing later; empty for most temporal models.
        graph: ``step`` (one new frame per run), ``clip`` (T frames per run) or ``backbone`` (one frame to its feature,
            the baseline that a benchmark compares a step with).
        precision: Arithmetic inside the graph.
        kept_float32: Nodes of a lower-precision graph that stayed in float32, with the reason for each.
        ranges: Origin of the ranges of quantised activations; None for a graph without quantisation.
        temperature: Divisor of the logits before the softmax.
        unknown_threshold: Confidence below which the label is ``unknown``.
        calibrated_on: Description of the clips that temperature and threshold were fitted on; empty if they were not
            fitted, in which case confidences are uncalibrated.
        dataset: Settings of the training data set, which ``kd-edge evaluate`` uses to open it; without folders.
        split: Name of the data set's split used for training.
        health: Bounds on the pictures that are accepted; None accepts all pictures.
        familiar: Reference features of familiar windows; None accepts all windows.
        segment_error_ms: Upper quartile, over the training recordings, of the largest distance between a frame and its
            segment's moment: the model is used to gaps as uneven as that. 0 means unknown.
        added: Classes added after training, in the order of the labels, of which they are the last. The figures of the
            training (``accuracy``, ``parity``) refer to the other classes.
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
        if tuple(added.label for added in self.added) != self.labels[len(self.trained_labels) :]:
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
        """The labels that the student was trained on."""
        return self.labels[: max(0, len(self.labels) - len(self.added))]

    @property
    def source_bytes(self) -> int:
        """Largest memory per source in bytes: the graph's inputs and outputs, kept features and kept planes."""
        spec = self.preprocess
        network_input = spec.input_channels * spec.input_px**2 * (self.segments if self.graph == "clip" else 1)
        states = sum(math.prod(state.shape) for state in self.states)
        features = self.segments * _ROWS_PER_SPACING * self.feature_size
        planes = spec.channels * spec.resize_px**2 * (_ROWS_PER_HISTORY if spec.has_motion else 3)
        return 4 * (network_input + 3 * states + features + planes)

    def own_hash(self) -> str:
        """Compute the expected ``manifest_sha256``."""
        bare = self.model_copy(update={"manifest_sha256": ""})
        return hashlib.sha256(bare.model_dump_json().encode()).hexdigest()

    @property
    def spacing_ns(self) -> int:
        """Time between two segments, nanoseconds."""
        return round(self.clip_seconds * 1e9 / self.segments)
