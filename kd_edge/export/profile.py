"""Export profiles: the precision of the exported graph and how closely it must reproduce the trained model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.artifact import Precision

__all__ = ["ExportProfile", "Precision", "scaled"]

RangeMethod = Literal["least_squares", "extremes", "percentile", "entropy"]
"""Method of computing the range of a quantised activation from the observed values."""

_EIGHT_BITS = {"max_abs_error": 0.2, "max_engine_error": 0.1, "min_argmax_agreement": 0.9, "golden_tolerance": 0.1}
_BOUNDS: dict[str, dict[str, float]] = {
    "fp16": {
        "max_abs_error": 0.002,
        "max_engine_error": 0.005,
        "min_argmax_agreement": 0.95,
        "golden_tolerance": 0.02,
    },
    "int8": _EIGHT_BITS,
    "int8-tensorrt": _EIGHT_BITS,
}
"""Default bounds of each precision that differ from those of float32."""


class ExportProfile(BaseModel):
    """One file of ``export/profiles``.

    Attributes:
        name: Name shown in reports.
        precision: Arithmetic inside the graph; inputs and outputs are float32 in every precision.
        graph: ``step`` is the streaming step that the runtime runs, ``clip`` the plain clip model.
        opset: ONNX operator set.
        engine: A further engine besides ONNX Runtime whose answers must meet the bounds.
        carry: Engines for which a converted model is included in the artifact.
        keep_float32: Nodes that stay in float32 in a lower precision, as patterns of their names (``head.*``).
        range_clips: Number of training clips, spread evenly, for the ranges of quantised activations.
        range_method: Method of computing a range: ``least_squares`` minimises the error of rounding and clipping
            together; ``extremes`` uses the observed extremes; ``percentile`` clips a small share; ``entropy`` changes
            the distribution least.
        max_abs_error: Largest difference of a logit from the torch model that passes if no logit exceeds 1 in size; it
            scales with the largest logit, as the resolution of floating-point numbers does.
        max_onnx_error: ``max_abs_error`` of the intermediate float32 graph when exporting a lower precision.
        max_engine_error: Largest difference of a logit between another engine and ONNX Runtime, scaled likewise.
        min_argmax_agreement: Smallest share of clips with the trained model's most probable class.
        min_stream_agreement: Smallest share of a stream's frames with the float32 graph's class.
        max_accuracy_drop: Largest drop in accuracy from the trained model.
        parity_clips: Number of real clips compared, spread evenly over classes and subjects; fewer for a large network.
        stream_frames: Smallest number of stream frames compared, if there are enough; 0 compares none.
        golden_tolerance: Largest difference of a logit in the self-test at load time, scaled likewise. It is wider than
            ``max_abs_error``, because engines and image libraries of other machines round differently; a wrong
            preprocessing is far outside.
        health: Fit bounds for healthy pictures and familiar features, so that a robot reports others.
        health_clips: Number of training clips used for this, spread evenly over classes and subjects.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    precision: Precision = "fp32"
    graph: Literal["step", "clip"] = "step"
    opset: Literal[18, 20, 21] = 20
    engine: Literal["onnxruntime", "openvino", "ncnn"] = "onnxruntime"
    carry: tuple[Literal["ncnn"], ...] = ()
    keep_float32: tuple[str, ...] = ()
    range_clips: int = Field(64, ge=1, le=1000)
    range_method: RangeMethod = "least_squares"
    max_abs_error: float = Field(1e-5, gt=0)
    max_onnx_error: float = Field(1e-5, gt=0)
    max_engine_error: float = Field(1e-4, gt=0)
    min_argmax_agreement: float = Field(1.0, ge=0, le=1)
    min_stream_agreement: float = Field(0.0, ge=0, le=1)
    max_accuracy_drop: float = Field(1.0, ge=0, le=1)
    parity_clips: int = Field(128, ge=1)
    stream_frames: int = Field(300, ge=0)
    golden_tolerance: float = Field(0.005, gt=0)
    health: bool = True
    health_clips: int = Field(300, ge=10, le=400)

    @model_validator(mode="before")
    @classmethod
    def _default_bounds(cls, values: Any) -> Any:
        """Fill in the default bounds of the precision."""
        if not isinstance(values, dict):
            return values
        return _BOUNDS.get(values.get("precision", "fp32"), {}) | values


def scaled(bound: float, largest_logit: float) -> float:
    """Scale a profile's bound to the size of the logits."""
    return bound * max(1.0, largest_logit)
