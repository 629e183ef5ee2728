"""Dense targets: one module for each kind of teacher knowledge, and ``gather`` for all."""

from kd_edge.train.inputs.targets.base import DenseTargets, Found, Group, StudentClips
from kd_edge.train.inputs.targets.features import FeatureSpace, complete_features, components_file
from kd_edge.train.inputs.targets.gather import check_targets, gather_targets, targets_fingerprint
from kd_edge.train.inputs.targets.joints import joint_targets

__all__ = [
    "DenseTargets",
    "FeatureSpace",
    "Found",
    "Group",
    "StudentClips",
    "check_targets",
    "complete_features",
    "components_file",
    "gather_targets",
    "joint_targets",
    "targets_fingerprint",
]
