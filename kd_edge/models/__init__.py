"""Backbones, temporal shifts and heads, the clip model and its streaming step; the settings do not import torch."""

from typing import TYPE_CHECKING

from kd_edge.lazy import lazily
from kd_edge.models.config import BACKBONES, ModelConfig, Temporal

if TYPE_CHECKING:
    from kd_edge.models.backbones import Backbone, build_backbone
    from kd_edge.models.clip import ClipModel, build_model
    from kd_edge.models.streaming import StreamingStep

__all__ = [
    "BACKBONES",
    "Backbone",
    "ClipModel",
    "ModelConfig",
    "StreamingStep",
    "Temporal",
    "build_backbone",
    "build_model",
]

__getattr__ = lazily(
    __name__,
    {
        "Backbone": "backbones",
        "build_backbone": "backbones",
        "ClipModel": "clip",
        "build_model": "clip",
        "StreamingStep": "streaming",
    },
)
