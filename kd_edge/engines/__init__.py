"""Run an artifact's graph. No torch, no onnx: the engine reads the file itself."""

from kd_edge.engines.base import Binding, StepEngine, carry, state_names
from kd_edge.engines.onnxruntime import ClipEngine, open_clip_engine, open_engine

__all__ = ["Binding", "ClipEngine", "StepEngine", "carry", "open_clip_engine", "open_engine", "state_names"]
