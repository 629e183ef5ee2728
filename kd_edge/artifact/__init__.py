"""The self-describing model file: one ONNX graph with everything a robot must know to run it."""

from kd_edge.artifact.file import BUNDLED, Artifact, beside, default_model, load, rewrite, sign, sign_beside, write
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
from kd_edge.artifact.signature import SigningKey, Trust, new_keys

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
    "SigningKey",
    "StageFigures",
    "StateSpec",
    "StreamFigures",
    "Trust",
    "beside",
    "default_model",
    "load",
    "new_keys",
    "rewrite",
    "sign",
    "sign_beside",
    "write",
]
