"""What an artifact says of itself: labels, preprocessing, window, states, figures."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kd_edge.errors import ArtifactError
from kd_edge.preprocess import Preprocess

FORMAT = 1


MANIFEST_KEY = "kd_edge"


GOLDEN_KEY = "kd_edge_golden"


GOLDEN_BYTES = 400_000
"""The golden clip takes at most this many bytes of the file."""


class ForeignFileError(ArtifactError):
    """Not a file of kd-edge at all: not ONNX, or without a manifest."""


Band = Literal["nir", "lwir", "depth", "rgb"]


class Parity(BaseModel):
    """How closely the exported graph reproduced the torch model on real frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_abs_error: float
    argmax_agreement: float
    clips: int
    tolerance: float


class StateSpec(BaseModel):
    """A recurrent tensor of the step, the i-th as ``state_in_i`` and ``state_out_i``; zeros before the first frame.

    Attributes:
        name: Module path of the layer that carries it.
        shape: Shape of the tensor without the batch axis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    shape: tuple[int, ...]


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
        temperature: Divides the logits before the softmax.
        unknown_threshold: Confidence below it makes the label ``unknown``.
        dataset: Settings of the data set it was trained on, so that ``kd-edge evaluate`` finds it; no folders.
        split: Name of the data set's split that it was trained on.
        sha256: SHA-256 (hex) of all bytes before the manifest entry.
        manifest_sha256: SHA-256 (hex) of this manifest as JSON with an empty ``manifest_sha256``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    name: str
    labels: tuple[str, ...] = Field(min_length=2)
    modality: str
    band: Band
    dtype: Literal["uint8", "uint16"]
    value_unit: str
    value_range: tuple[float, float]
    preprocess: Preprocess
    segments: int = Field(ge=1)
    clip_seconds: float = Field(gt=0)
    feature_size: int = Field(ge=1)
    temporal: Literal["tsn", "tconv", "trn", "tsm", "tsm_causal"]
    states: tuple[StateSpec, ...] = ()
    graph: Literal["step", "clip", "backbone"] = "step"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    temperature: float = Field(1.0, gt=0)
    unknown_threshold: float = Field(0.0, ge=0, le=1)
    accuracy: dict[str, float] = {}
    dataset: dict[str, Any] = {}
    split: str = ""
    parity: Parity | None = None
    recipe_fingerprint: str = ""
    data_fingerprint: str = ""
    versions: dict[str, str] = {}
    sha256: str = ""
    manifest_sha256: str = ""

    def own_hash(self) -> str:
        """What ``manifest_sha256`` must be."""
        bare = self.model_copy(update={"manifest_sha256": ""})
        return hashlib.sha256(bare.model_dump_json().encode()).hexdigest()

    @property
    def spacing_ns(self) -> int:
        """Time between two segments, nanoseconds."""
        return round(self.clip_seconds * 1e9 / self.segments)
