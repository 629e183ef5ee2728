"""The figures of one export."""

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
    """What was written and how good it is.

    Attributes:
        file: The artifact.
        file_bytes: Size of the artifact.
        graph_bytes: Size of the ONNX graph in it; the rest is golden clip and manifest.
        parameters: Number of the model's weights.
        step_flops: Floating-point operations (a multiply-add is two) of one streaming step; of one frame's share of a
            clip where the model has none.
        clip_flops: Floating-point operations of the clip model on one window.
        nodes: Number of nodes of the graph.
        parity: Comparison with the trained model on real clips; None for random weights.
        kept_float32: Nodes of a lower precision that stayed in float32, and why.
        calibrated_on: Whose clips decided temperature and threshold; empty when nobody's did.
        health: Bounds of a healthy picture; None where none were fitted.
        familiar_fitted_on: Which windows decided what is unfamiliar; empty where nothing did.
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
    """Number of weights."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: ClipModel, in_channels: int, input_px: int) -> tuple[int, int]:
    """Operations of one streaming step and of the clip model on one window; convolutions and matrix products."""
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
    """How many clips a student answers with so many operations; at most those that are wanted, at least eight."""
    spec = student.spec.preprocess
    _, clip = count_flops(student.model, spec.input_channels, spec.input_px)
    return min(wanted, max(8, int(flops // clip)))


def opset_of(proto: onnx.ModelProto) -> int:
    """The default operator set a graph really has."""
    return next(int(entry.version) for entry in proto.opset_import if not entry.domain)
