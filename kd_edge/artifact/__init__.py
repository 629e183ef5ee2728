"""The self-describing model file: one ONNX graph with everything a robot needs to run it."""

from typing import TYPE_CHECKING

from kd_edge.artifact.file import BUNDLED, BUNDLED_NAME, Artifact, artifact_path, default_model, load, rewrite, write
from kd_edge.artifact.golden import GoldenClip
from kd_edge.artifact.manifest import (
    FORMAT,
    GOLDEN_BYTES,
    GOLDEN_KEY,
    MANIFEST_KEY,
    UNCALIBRATED,
    ActivationRanges,
    AddedClass,
    Band,
    ForeignFileError,
    Manifest,
    Parity,
    Precision,
    StageFigures,
    StateSpec,
    StreamFigures,
)
from kd_edge.lazy import lazily

if TYPE_CHECKING:
    from kd_edge.artifact.signature import SigningKey, Trust, new_keys
    from kd_edge.artifact.signed import beside
    from kd_edge.artifact.signing import sign, sign_beside

__all__ = [
    "BUNDLED",
    "BUNDLED_NAME",
    "FORMAT",
    "GOLDEN_BYTES",
    "GOLDEN_KEY",
    "MANIFEST_KEY",
    "UNCALIBRATED",
    "ActivationRanges",
    "AddedClass",
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
    "artifact_path",
    "beside",
    "default_model",
    "load",
    "new_keys",
    "rewrite",
    "sign",
    "sign_beside",
    "write",
]

__getattr__ = lazily(
    __name__,
    {
        **dict.fromkeys(("SigningKey", "Trust", "new_keys"), "signature"),
        "beside": "signed",
        **dict.fromkeys(("sign", "sign_beside"), "signing"),
    },
)
