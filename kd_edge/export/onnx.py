"""Export the student to an ONNX graph with torch's dynamo exporter."""

from __future__ import annotations

import json
from collections import Counter
from typing import Literal

import onnx
import torch
from torch import nn

from kd_edge.engines import state_names
from kd_edge.models import ClipModel, StreamingStep
from kd_edge.models.shift import state_shapes

Graph = Literal["step", "clip"]


def to_onnx(
    model: ClipModel, *, in_channels: int, input_px: int, graph: Graph = "step", opset: int = 20
) -> onnx.ModelProto:
    """Export a clip model in eval mode and float32, with folded batch normalisation and a dynamic batch axis.

    Args:
        model: The student.
        in_channels: Input channels C.
        input_px: Side S of the input.
        graph: ``step``: frame (B, C, S, S), past (B, T-1, D) -> feature (B, D), logits (B, K), and with causal
            shifts ``state_in_i`` (B, fold, h, w) -> ``state_out_i`` of the same shape;
            ``clip``: clip (B, T, C, S, S) -> logits (B, K).
        opset: ONNX operator set.

    Returns:
        The checked model with embedded weights, without information on the machine that exported it.

    Raises:
        ExportError: A step is requested for a model that needs future frames.
    """
    module: nn.Module
    if graph == "step":
        module = StreamingStep(model)
        shapes = [shape for _, shape in state_shapes(model.backbone, in_channels, input_px)]
        states_in, states_out = state_names(len(shapes))
        frame = torch.zeros(2, in_channels, input_px, input_px)
        past = torch.zeros(2, model.segments - 1, model.backbone.feature_size)
        inputs = {"frame": frame, "past": past}
        inputs |= {name: torch.zeros(2, *shape) for name, shape in zip(states_in, shapes, strict=True)}
        outputs = ["feature", "logits", *states_out]
    else:
        module, inputs = model, {"clip": torch.zeros(2, model.segments, in_channels, input_px, input_px)}
        outputs = ["logits"]
    # Only one batch axis is named: a second one of that name would cause a warning, and the exporter infers equality.
    batch = [{0: torch.export.Dim("batch")}, *[{0: torch.export.Dim.DYNAMIC}] * (len(inputs) - 1)]
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=outputs,
        opset_version=opset,
        dynamic_shapes=(*batch[:2], tuple(batch[2:])) if len(batch) > 2 else tuple(batch),  # states are *args
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    _name_nodes(proto.graph)
    _strip(proto)
    onnx.checker.check_model(proto)
    return proto


HEAD = "head."
"""Prefix of the names of the temporal head's nodes; the backbone's prefix is ``backbone.``."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name every node by its module and operator, as in ``backbone.layer1.0.conv1/Conv``."""
    weights = {initializer.name for initializer in graph.initializer}
    counts: Counter[str] = Counter()
    for node in graph.node:
        own = next((name.rpartition(".")[0] for name in node.input if name in weights and name.endswith(".weight")), "")
        name = f"{own or _module_path(node)}/{node.op_type}"
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"


def _module_path(node: onnx.NodeProto) -> str:
    """Path of the innermost module that a node was exported from; ``step`` for the streaming step itself."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    scopes = [str(scope) for scope in json.loads(text.replace("'", '"'))]
    modules = [scope for scope in scopes[:-1] if scope]  # the last one is the operator
    return modules[-1] if modules and "." in modules[-1] else f"{modules[-1]}.{scopes[-1]}" if modules else "step"


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's metadata, such as source paths and call stacks of this machine."""
    graph = proto.graph
    del graph.metadata_props[:], proto.metadata_props[:]
    graph.doc_string = proto.doc_string = ""
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
