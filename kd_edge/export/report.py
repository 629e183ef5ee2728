"""The summary of an export, and counts of parameters and operations."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from pydantic import BaseModel, ConfigDict
from torch.utils.flop_counter import FlopCounterMode

from kd_edge.artifact import Parity
from kd_edge.health import PictureBounds
from kd_edge.models import ClipModel, StreamingStep
from kd_edge.models.saved import SavedStudent
from kd_edge.models.shift import shifts, state_shapes


class ExportReport(BaseModel):
    """The file written by an export, and its quality.

    Attributes:
        file: The artifact.
        file_bytes: Size of the artifact.
        graph_bytes: Size of its ONNX graph; the rest is mainly golden clip and manifest.
        golden_frames: Number of frames of the golden clip; 0 without one.
        precision: Arithmetic inside the graph.
        graph: ``step`` or ``clip``.
        opset: ONNX operator set.
        nodes: Number of nodes of the graph.
        parameters: Number of the model's weights.
        step_flops: Floating-point operations (a multiply-add is two) of one streaming step; for a model without a
            step, a clip's operations divided by its frames.
        clip_flops: Floating-point operations of the clip model on one window.
        parity: Comparison with the trained model on real clips; None for random weights.
        kept_float32: Nodes of a lower-precision graph that stayed in float32, with the reason for each.
        calibrated_on: Description of the clips that temperature and threshold were fitted on; empty if not fitted.
        health: Bounds of a healthy picture; None if not fitted.
        familiar_fitted_on: Description of the windows that the threshold of unfamiliar windows was fitted on; empty if
            not fitted.
        seconds: Wall time of the export.
    """

    model_config = ConfigDict(frozen=True)
    file: Path
    file_bytes: int
    graph_bytes: int
    golden_frames: int
    precision: str
    graph: str
    opset: int
    nodes: int
    parameters: int
    step_flops: int
    clip_flops: int
    parity: Parity | None
    kept_float32: dict[str, str]
    calibrated_on: str
    health: PictureBounds | None
    familiar_fitted_on: str
    seconds: float


def count_parameters(model: ClipModel) -> int:
    """Count a model's weights."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: ClipModel, in_channels: int, input_px: int) -> tuple[int, int]:
    """Count operations (convolutions and matrix products) of one streaming step and of the clip model on one window."""
    frame = torch.zeros(1, in_channels, input_px, input_px)
    past = torch.zeros(1, model.segments - 1, model.backbone.feature_size)
    states = [torch.zeros(1, *shape) for _, shape in state_shapes(model.backbone, in_channels, input_px)]
    clip = torch.zeros(1, model.segments, in_channels, input_px, input_px)
    with torch.inference_mode(), FlopCounterMode(display=False) as whole:
        model(clip)
    if any(not module.causal for _, module in shifts(model.backbone)):
        return whole.get_total_flops() // model.segments, whole.get_total_flops()
    with torch.inference_mode(), FlopCounterMode(display=False) as step:
        StreamingStep(model)(frame, past, *states)
    return step.get_total_flops(), whole.get_total_flops()


def clips_within(flops: float, student: SavedStudent, wanted: int) -> int:
    """Return how many clips a student can process with this many operations: at least eight, at most ``wanted``."""
    spec = student.spec.preprocess
    _, clip = count_flops(student.model, spec.input_channels, spec.input_px)
    return min(wanted, max(8, int(flops // clip)))


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the default operator set that a graph actually uses."""
    return next(int(entry.version) for entry in proto.opset_import if not entry.domain)
