"""The table of distillation losses: a module each, with its settings, layers, adapter and value side by side.

A new one is a module here, with its mathematics a function of ``kd_edge.train.losses``, and a line in ``Loss``:
recipes, terms, listings and checks follow. Reading a recipe imports these modules, so they import torch only where they
compute.

Losses on feature maps name the modules they compare. A path is one of ``kd-edge recipes layers RECIPE``, for example
``backbone.layer3`` (an image feature per frame) or ``backbone`` (the feature vector per frame). Left empty, a loss
takes its own paper's choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kd_edge.train.distil.methods.at import AttentionLoss
from kd_edge.train.distil.methods.base import FeatureMethod, Method, OneLayerMethod, Pair, Weighted
from kd_edge.train.distil.methods.cc import CorrelationLoss
from kd_edge.train.distil.methods.ccskd import CcskdLoss
from kd_edge.train.distil.methods.contrastive import ContrastiveLoss
from kd_edge.train.distil.methods.dkd import DkdLoss
from kd_edge.train.distil.methods.fitnet import FitnetLoss
from kd_edge.train.distil.methods.gsdm import GsdmLoss
from kd_edge.train.distil.methods.logits import LogitsLoss
from kd_edge.train.distil.methods.mgcam import MgcamLoss
from kd_edge.train.distil.methods.rkd import RkdLoss
from kd_edge.train.distil.methods.semantic import SemanticLoss
from kd_edge.train.distil.methods.soft_target import SoftTargetLoss
from kd_edge.train.distil.methods.sp import SimilarityLoss

__all__ = [
    "AttentionLoss",
    "CcskdLoss",
    "ContrastiveLoss",
    "CorrelationLoss",
    "DkdLoss",
    "FeatureMethod",
    "FitnetLoss",
    "GsdmLoss",
    "LogitsLoss",
    "Loss",
    "Method",
    "MgcamLoss",
    "OneLayerMethod",
    "Pair",
    "RkdLoss",
    "SemanticLoss",
    "SimilarityLoss",
    "SoftTargetLoss",
    "Weighted",
    "term_names",
]

Loss = (
    SoftTargetLoss
    | LogitsLoss
    | DkdLoss
    | MgcamLoss
    | FitnetLoss
    | AttentionLoss
    | SimilarityLoss
    | CorrelationLoss
    | RkdLoss
    | CcskdLoss
    | GsdmLoss
    | SemanticLoss
    | ContrastiveLoss
)


def term_names(losses: Sequence[Weighted]) -> list[str]:
    """One name per term: its kind, numbered from the second of the same kind on (``fitnet``, ``fitnet_2``)."""
    seen: Counter[str] = Counter()
    names = []
    for loss in losses:
        seen[loss.kind] += 1
        names.append(loss.kind if seen[loss.kind] == 1 else f"{loss.kind}_{seen[loss.kind]}")
    return names
