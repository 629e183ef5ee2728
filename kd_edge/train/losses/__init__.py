"""Distillation losses: plain functions on tensors, for this trainer or any other training loop.

Every function computes in float32 (float64 inputs stay float64), even inside a lower-precision autocast, sends no
gradient into the teacher, and returns a scalar.
"""

from kd_edge.train.losses.ccskd import (
    CcskdConnectors,
    CcskdRates,
    CcskdSchedule,
    ccskd,
    ccskd_schedule,
    selective_soft_target,
)
from kd_edge.train.losses.contrastive import contrastive
from kd_edge.train.losses.dense import dense_regression
from kd_edge.train.losses.features import HintRegressor, attention_transfer, hint_mse
from kd_edge.train.losses.gsdm import gsdm, map_distance, semantic_map, semantic_maps, semantic_weights
from kd_edge.train.losses.labels import class_weights, cross_entropy
from kd_edge.train.losses.logits import dkd, dkd_terms, logit_mse, soft_target
from kd_edge.train.losses.mgcam import MgcamAdapters, cross_graph, mgcam, normalize_graph, sample_graph
from kd_edge.train.losses.relations import (
    CorrelationEmbedding,
    correlation_congruence,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from kd_edge.train.losses.semantic import semantic_preserving

__all__ = [
    "CcskdConnectors",
    "CcskdRates",
    "CcskdSchedule",
    "CorrelationEmbedding",
    "HintRegressor",
    "MgcamAdapters",
    "attention_transfer",
    "ccskd",
    "ccskd_schedule",
    "class_weights",
    "contrastive",
    "correlation_congruence",
    "cross_entropy",
    "cross_graph",
    "dense_regression",
    "dkd",
    "dkd_terms",
    "gsdm",
    "hint_mse",
    "logit_mse",
    "map_distance",
    "mgcam",
    "normalize_graph",
    "rkd_angle",
    "rkd_distance",
    "sample_graph",
    "selective_soft_target",
    "semantic_map",
    "semantic_maps",
    "semantic_preserving",
    "semantic_weights",
    "similarity_preserving",
    "soft_target",
]
