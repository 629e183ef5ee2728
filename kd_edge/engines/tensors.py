"""Names and shapes of a graph's tensors, and the check of arrays against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.errors import EngineError, did_you_mean

Shapes = dict[str, tuple[int, ...]]
"""Shapes by name, without the batch axis."""


class Tensors(NamedTuple):
    """Inputs and outputs of a graph, in order."""

    inputs: Shapes
    outputs: Shapes


def state_names(count: int) -> tuple[list[str], list[str]]:
    """Return the names of a step graph's recurrent inputs and outputs, ``state_in_0`` ... and ``state_out_0`` ..."""
    return [f"state_in_{i}" for i in range(count)], [f"state_out_{i}" for i in range(count)]


def tensors(manifest: Manifest) -> Tensors:
    """Return the tensors that a manifest specifies for its graph."""
    size = manifest.preprocess.input_px
    frame, feature, logits = (manifest.preprocess.input_channels, size, size), (manifest.feature_size,), manifest.labels
    if manifest.graph == "clip":
        return Tensors({"clip": (manifest.segments, *frame)}, {"logits": (len(logits),)})
    if manifest.graph == "backbone":
        return Tensors({"frame": frame}, {"feature": feature})
    states = [state.shape for state in manifest.states]
    states_in, states_out = (dict(zip(names, states, strict=True)) for names in state_names(len(states)))
    past = (manifest.segments - 1, *feature)
    return Tensors(
        {"frame": frame, "past": past, **states_in}, {"feature": feature, "logits": (len(logits),), **states_out}
    )


def check_arrays(given: Mapping[str, object], wanted: Shapes) -> int:
    """Check arrays against names and shapes.

    Args:
        given: Arrays by name, batch axis first.
        wanted: Shapes without the batch axis.

    Returns:
        The batch size B.

    Raises:
        EngineError: A name is missing or unknown, an array is not float32, a shape is wrong, or batches differ.
    """
    names = ", ".join(wanted)
    for name in sorted(given.keys() - wanted.keys()):
        raise EngineError(f"input '{name}'{did_you_mean(name, wanted)}", f"the inputs {names}", "rename it")
    batch: int | Literal["batch"] = "batch"
    for name, shape in wanted.items():
        if name not in given:
            raise EngineError(f"no input '{name}'", f"the inputs {names}", "add it")
        array = given[name]
        expected = f"{name} float32 ({', '.join(map(str, (batch, *shape)))})"
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            what = f"{array.dtype.name} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise EngineError(f"{name} {what}", expected, "convert it: np.asarray(values, dtype=np.float32)")
        if array.shape[1:] != shape or batch not in ("batch", len(array)):
            found = f"{name} float32 {array.shape}"
            raise EngineError(found, expected, "stack the sources' arrays along the first axis: np.stack")
        batch = len(array)
    assert batch != "batch"
    return batch
