"""How much of a plan really runs in half precision or 8 bits: asked, where it can be, of the built engine itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = Literal["float32", "half", "int8", "other"]
_PATTERNS: dict[Number, str] = {"int8": r"int8", "half": r"half|fp16|bf16|bfloat16", "float32": r"float|fp32|tf32"}
"""In what an inspector calls a format, the narrowest number first: "Channel major FP16 format", "Half", "Int8"."""
_MULTIPLYING = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_ORDER: tuple[Number, ...] = ("int8", "half", "float32", "other")


class Shares(BaseModel):
    """Layers by the numbers they compute with.

    Attributes:
        told_by: ``engine``: by the built engine's layers. ``network``: by the types of the graph it was built from,
            where no engine can be asked: no GPU is there, or the library tells nothing; what it fuses is not in it.
        layers: How many there are.
        float32: How many of the layers that multiply compute in 32-bit floats; all layers, told by an engine.
        half: How many of them in 16-bit ones.
        int8: How many of them in 8-bit integers.
        other: How many in others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    told_by: Literal["engine", "network"]
    layers: int = Field(ge=0)
    float32: int = Field(ge=0)
    half: int = Field(ge=0)
    int8: int = Field(ge=0)
    other: int = Field(ge=0)

    def share(self, number: Number) -> float:
        """The share of those counted that compute with these numbers; 0 of none."""
        counted = self.float32 + self.half + self.int8 + self.other
        return float(getattr(self, number)) / counted if counted else 0.0

    def __str__(self) -> str:
        """The shares in words."""
        shares = ", ".join(f"{self.share(n):.0%} {n}" for n in ("int8", "half", "float32") if getattr(self, n))
        return f"{shares or 'nothing counted'} of {self.layers} layers (told by the {self.told_by})"


def by_engine(description: str) -> Shares | None:
    """Shares by the inspector's JSON of a built engine; None where it tells no layer's numbers.

    A layer computes with the narrowest numbers among what it reads and writes.
    """
    try:
        layers = json.loads(description).get("Layers", [])
    except (ValueError, AttributeError):
        return None
    found = [_narrowest(_formats(layer)) for layer in layers if isinstance(layer, dict)]
    return _counted("engine", len(layers), found) if found and set(found) != {"other"} else None


def by_network(network: Any, trt: Any) -> Shares:
    """Shares by the types of a strongly typed network: of the layers that multiply, those that read 8 bits or half."""
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
