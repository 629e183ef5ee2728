"""Freezes parts of a student's backbone."""

from __future__ import annotations

import torch

from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.models import ClipModel
from kd_edge.models.backbones import Backbone, build_backbone
from kd_edge.train.recipe import StudentConfig

WHOLE = "backbone"


def check_stages(config: StudentConfig) -> None:
    """Refuse stages that the backbone does not have; nothing is computed.

    Raises:
        ConfigError: Names the first one.
    """
    if config.freeze is not None:
        with torch.device("meta"):
            _check(build_backbone(config.model.backbone, in_channels=3), config)


def freeze(model: ClipModel, config: StudentConfig) -> int:
    """Freeze parts of a student's backbone, including their batch normalisation statistics.

    Returns:
        Number of parameters that stay.

    Raises:
        ConfigError: The backbone has no such stage.
    """
    if config.freeze is None:
        return 0
    backbone = model.backbone
    _check(backbone, config)
    parts = (
        list(backbone.children())
        if config.freeze == WHOLE
        else [part for stage in config.freeze for part in backbone.parts_of(stage)]
    )
    backbone.fix(parts)
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def _check(backbone: Backbone, config: StudentConfig) -> None:
    stages = () if config.freeze in (None, WHOLE) else config.freeze or ()
    for stage in stages:
        if stage not in backbone.stages:
            raise ConfigError(
                f"student.freeze names '{stage}', which is not a stage of {config.model.backbone}"
                f"{did_you_mean(stage, backbone.stages)}",
                f"'{WHOLE}', or some of {', '.join(backbone.stages)}",
                "correct student.freeze",
            )
