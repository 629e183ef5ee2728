"""Distillation losses: plain functions on tensors, for this trainer or anyone's loop.

Every function computes in float32 (float64 stays) even inside a lower-precision autocast, sends no gradient into the
teacher, and returns a scalar.
"""

from kd_edge.train.losses.graph import MgcamAdapters, mgcam, normalize_graph, sample_graph
from kd_edge.train.losses.logits import dkd, dkd_terms, soft_target

__all__ = ["MgcamAdapters", "dkd", "dkd_terms", "mgcam", "normalize_graph", "sample_graph", "soft_target"]
