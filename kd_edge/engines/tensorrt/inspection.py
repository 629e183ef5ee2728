"""Precision of a plan's layers, read from the built engine where possible."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = Literal["float32", "half", "int8", "other"]
_PATTERNS: dict[Number, str] = {"int8": r"int8", "half": r"half|fp16|bf16|bfloat16", "float32": r"float|fp32|tf32"}
"""Patterns in the inspector's names of formats, narrowest first: "Channel major FP16 format", "Half", "Int8"."""
_MULTIPLYING = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_ORDER: tuple[Number, ...] = ("int8", "half", "float32", "other")


class Shares(BaseModel):
    """Number of layers by precision.

    Attributes:
        told_by: Source of the numbers. ``engine``: the layers of the built engine. ``network``: the types of the
            source graph, used if the engine cannot be inspected (no GPU, or the library gives no information); layer
            fusion is not included.
        layers: Total number of layers.
        float32: Layers that compute in 32-bit floats; ``network`` counts only layers that multiply.
        half: Layers that compute in 16-bit floats.
        int8: Layers that compute in 8-bit integers.
        other: Layers that compute in other types.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    told_by: Literal["engine", "network"]
    layers: int = Field(ge=0)
    float32: int = Field(ge=0)
    half: int = Field(ge=0)
    int8: int = Field(ge=0)
    other: int = Field(ge=0)

    def share(self, number: Number) -> float:
        """Return the fraction of counted layers with this precision; 0 if none was counted."""
        counted = self.float32 + self.half + self.int8 + self.other
        return float(getattr(self, number)) / counted if counted else 0.0

    def __str__(self) -> str:
        """Return the fractions as text."""
        shares = ", ".join(f"{self.share(n):.0%} {n}" for n in ("int8", "half", "float32") if getattr(self, n))
        return f"{shares or 'nothing counted'} of {self.layers} layers (from the {self.told_by})"


def by_engine(description: str) -> Shares | None:
    """Count layers from the inspector's JSON of a built engine; None if it contains no precision.

    A layer counts as the narrowest type among its inputs and outputs.
    """
    try:
        layers = json.loads(description).get("Layers", [])
    except (ValueError, AttributeError):
        return None
    found = [_narrowest(_formats(layer)) for layer in layers if isinstance(layer, dict)]
    return _counted("engine", len(layers), found) if found and set(found) != {"other"} else None


def by_network(network: Any, trt: Any) -> Shares:
    """Count the multiplying layers of a strongly typed network by the type of their input."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {_output(layer): layer.type for layer in layers}
    multiplying = [layer for layer in layers if layer.type.name in _MULTIPLYING]
    dequantised = trt.LayerType.DEQUANTIZE
    found: list[Number] = [
        "int8" if made_by.get(layer.get_input(0).name) == dequantised else _number(layer.get_input(0).dtype.name)
        for layer in multiplying
    ]
    return _counted("network", len(layers), found)


def _counted(told_by: Literal["engine", "network"], layers: int, found: list[Number]) -> Shares:
    counts = {number: found.count(number) for number in _ORDER}
    return Shares(told_by=told_by, layers=layers, **counts)


def _output(layer: Any) -> str:
    return str(layer.get_output(0).name) if layer.num_outputs else ""


def _formats(layer: dict[str, Any]) -> Iterator[str]:
    for side in ("Inputs", "Outputs"):
        for tensor in layer.get(side) or ():
            if isinstance(tensor, dict):
                yield str(tensor.get("Format/Datatype") or tensor.get("Datatype") or "")


def _narrowest(formats: Iterable[str]) -> Number:
    return min((_number(text) for text in formats), key=_ORDER.index, default="other")


def _number(text: str) -> Number:
    return next((number for number, pattern in _PATTERNS.items() if re.search(pattern, text, re.IGNORECASE)), "other")
