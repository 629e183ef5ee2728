"""Export profiles: the precision that ships and how closely it must reproduce the trained model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["fp32", "fp16"]


class ExportProfile(BaseModel):
    """One file of ``export/profiles``.

    Attributes:
        name: Shown in reports.
        precision: Arithmetic inside the graph; inputs and outputs are float32 in every precision.
        graph: ``step`` is the streaming step that the runtime runs, ``clip`` the plain clip model.
        opset: ONNX operator set.
        max_abs_error: Largest difference of a logit from the torch model that passes, where no logit exceeds 1 in size;
            it grows in proportion to the largest logit, as the resolution of floating-point numbers does.
        min_argmax_agreement: Smallest share of clips whose most probable class stays the same.
        parity_clips: Real clips that are compared, spread evenly over the test split.
        golden_tolerance: Largest difference of a logit in the self-test at load, with the same proportion. Wider than
            ``max_abs_error``: engines and image libraries of other machines round differently, a wrong preprocessing is
            far outside.
        health: Fit what healthy pictures and familiar features are like, so that a robot is told of others.
        health_clips: Training clips that are looked at for it, spread evenly over classes and subjects.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    precision: Precision = "fp32"
    graph: Literal["step", "clip"] = "step"
    opset: Literal[18, 20, 21] = 20
    max_abs_error: float = Field(1e-5, gt=0)
    min_argmax_agreement: float = Field(1.0, ge=0, le=1)
    parity_clips: int = Field(32, ge=1)
    golden_tolerance: float = Field(0.005, gt=0)
    health: bool = True
    health_clips: int = Field(300, ge=10, le=400)


def scaled(bound: float, largest_logit: float) -> float:
    """A profile's bound for logits of this size."""
    return bound * max(1.0, largest_logit)
