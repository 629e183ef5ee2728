"""The weights of an artifact's graph, by their names in the clip model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

_PARAMETERS = {
    "Conv": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "MatMul": ("weight",),
    "Add": ("bias",),  # what a linear layer adds to a product of more than two axes
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
"""Parameter names of a node's inputs after the first, if they are weights."""


def graph_weights(content: bytes) -> dict[str, Tensor]:
    """Read the weights of a graph made by ``kd_edge.export.onnx.to_onnx``, unchanged.

    Every node is called after the module it came from. Batch normalisation that was folded into the convolution before
    it has no node: what it added is that convolution's bias, whether the module has one or not.

    Args:
        content: The serialised model.

    Returns:
        Name -> float32 weights; those of linear layers (out, in), as torch has them.
    """
    graph = onnx.load_model_from_string(content).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, Tensor] = {}
    for node in graph.node:
        module = node.name.rpartition("/")[0]
        for leaf, tensor in _named(node, tensors).items():
            found.setdefault(f"{module}.{leaf}", tensor)  # a module that runs twice has the same weights
    return found


def _named(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> dict[str, Tensor]:
    """A node's weights by the names of the module's parameters."""
    if node.op_type not in _PARAMETERS:
        return {}
    names = _PARAMETERS[node.op_type]
    given = {leaf: tensors.get(name) for leaf, name in zip(names, node.input[1:], strict=False)}
    found = {leaf: _as_float32(tensor) for leaf, tensor in given.items() if tensor is not None and _is_weight(tensor)}
    is_turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _transposes(node))
    if is_turned and "weight" in found:
        found["weight"] = found["weight"].transpose(0, -1).contiguous()  # (in, out) -> (out, in)
    return found


def _transposes(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) and len(tensor.dims) > 0


def _as_float32(tensor: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
