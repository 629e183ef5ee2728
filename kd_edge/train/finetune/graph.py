"""The weights of an artifact's graph, named as the clip model's that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

_NORM = ("weight", "bias", "running_mean", "running_var")


def graph_weights(content: bytes) -> dict[str, Tensor]:
    """Read the weights of a graph that ``kd_edge.export.onnx.to_onnx`` made, exactly as they stand in it.

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
        named = _named(node, tensors)
        for leaf, tensor in named.items():
            found.setdefault(f"{module}.{leaf}", tensor)  # a module that runs twice has the same weights
    return found


def _named(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> dict[str, Tensor]:
    """A node's weights by the name of the module's parameter."""
    given = [tensors.get(name) for name in node.input]
    constant = [None if tensor is None else _as_float32(tensor) for tensor in given]
    kind = node.op_type
    if kind == "Conv":
        named = dict(zip(("weight", "bias"), constant[1:], strict=False))
    elif kind == "Gemm":
        is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        weight = constant[1]
        named = {"weight": weight if weight is None or is_transposed else weight.T.contiguous(), "bias": constant[2]}
    elif kind == "MatMul":
        named = {"weight": None if constant[1] is None else constant[1].T.contiguous()}
    elif kind == "Add":  # what a linear layer adds to the product of more than two axes
        named = {"bias": constant[1]}
    elif kind == "BatchNormalization":
        named = dict(zip(_NORM, constant[1:], strict=False))
    else:
        named = {}
    return {leaf: tensor for leaf, tensor in named.items() if tensor is not None}


def _as_float32(tensor: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
