"""The self-describing model file: one ONNX graph with everything a robot must know to run it."""

from kd_edge.artifact.file import BUNDLED, Artifact, default_model, load, rewrite, write
from kd_edge.artifact.golden import GoldenClip
from kd_edge.artifact.manifest import (
    FORMAT,
    GOLDEN_BYTES,
    GOLDEN_KEY,
    MANIFEST_KEY,
    UNCALIBRATED,
    ActivationRanges,
    Band,
    ForeignFileError,
    Manifest,
    Parity,
    Precision,
    StageFigures,
    StateSpec,
    StreamFigures,
)

__all__ = [
    "BUNDLED",
    "FORMAT",
    "GOLDEN_BYTES",
    "GOLDEN_KEY",
    "MANIFEST_KEY",
    "UNCALIBRATED",
    "ActivationRanges",
    "Artifact",
    "Band",
    "ForeignFileError",
    "GoldenClip",
    "Manifest",
    "Parity",
    "Precision",
    "StageFigures",
    "StateSpec",
    "StreamFigures",
    "default_model",
    "load",
    "rewrite",
    "write",
]
