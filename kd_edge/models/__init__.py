"""Backbones, temporal shifts and heads, the clip model and its streaming step."""

from kd_edge.models.backbones import BACKBONES, Backbone, build_backbone
from kd_edge.models.clip import ClipModel, ModelConfig, Temporal, build_model
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
