"""Export profiles: the precision that ships and how closely it must reproduce the trained model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.artifact import Precision

__all__ = ["ExportProfile", "Precision", "scaled"]

RangeMethod = Literal["least_squares", "extremes", "percentile", "entropy"]
"""How the range of a quantised activation is made of the values that were seen."""

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
"""By precision: what float32's bounds are replaced by."""


class ExportProfile(BaseModel):
    """One file of ``export/profiles``.

    Attributes:
        name: Shown in reports.
        precision: Arithmetic inside the graph; inputs and outputs are float32 in every precision.
        graph: ``step`` is the streaming step that the runtime runs, ``clip`` the plain clip model.
        opset: ONNX operator set.
        engine: The engine whose answers are held to the bounds, beside ONNX Runtime's.
        carry: What is converted and carried in the artifact for other engines.
        keep_float32: Nodes that stay in float32 in a lower precision, as patterns of their names (``head.*``).
        range_clips: Training clips whose frames give quantised activations their ranges, spread evenly.
        range_method: How: ``least_squares``, where rounding and clipping together lose least; the ``extremes`` that
            were seen; all but a ``percentile``; ``entropy``, where the distribution changes least.
        max_abs_error: Largest difference of a logit from the torch model that passes, where no logit exceeds 1 in size;
            it grows in proportion to the largest logit, as the resolution of floating-point numbers does.
        max_onnx_error: The same of the float32 graph on the way to a lower precision.
        max_engine_error: The same of another engine from ONNX Runtime with that graph.
        min_argmax_agreement: Smallest share of clips whose most probable class stays the trained model's.
        min_stream_agreement: Smallest share of a stream's frames whose class stays the float32 graph's.
        max_accuracy_drop: How much smaller the share of right clips may be than the trained model's.
        parity_clips: Real clips that are compared, spread evenly over classes and subjects; of a large network
            fewer.
        stream_frames: Frames of a stream that are compared, at least, where the clips have so many; 0 for none.
        golden_tolerance: Largest difference of a logit in the self-test at load, with the same proportion. Wider than
            ``max_abs_error``: engines and image libraries of other machines round differently, a wrong preprocessing is
            far outside.
        health: Fit what healthy pictures and familiar features are like, so that a robot is told of others.
        health_clips: Training clips that are looked at for it, spread evenly over classes and subjects.
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
    def _bounds_of_the_precision(cls, values: Any) -> Any:
        """Bounds that a profile leaves out are those of its precision."""
        if not isinstance(values, dict):
            return values
        return _BOUNDS.get(values.get("precision", "fp32"), {}) | values


def scaled(bound: float, largest_logit: float) -> float:
    """A profile's bound for logits of this size."""
    return bound * max(1.0, largest_logit)
