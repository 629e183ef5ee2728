"""The clip model: T segment frames through one backbone, then a temporal head."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from kd_edge.models.backbones import Backbone, BackboneName, build_backbone
from kd_edge.models.heads import ConsensusHead, TemporalConvolutionHead

Head = ConsensusHead | TemporalConvolutionHead


class ModelConfig(BaseModel):
    """The architecture of a teacher or a student; with channels, classes and segments it rebuilds the module.

    Attributes:
        backbone: Image network.
        temporal: ``tsn`` averages the segments' logits; ``tconv`` is two temporal convolutions and sees their order.
        dropout: On the features, in training.
        hidden: Channels of the temporal convolutions (``tconv`` only).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    backbone: BackboneName = "resnet18"
    temporal: Literal["tsn", "tconv"] = "tsn"
    dropout: float = Field(0.5, ge=0, lt=1)
    hidden: int = Field(256, ge=1, le=4096)


class ClipModel(nn.Module):
    """Class logits of a clip.

    Args:
        backbone: Frame to feature.
        head: Features of the segments to logits.
        segments: Number of segments T.
    """

    def __init__(self, backbone: Backbone, head: Head, segments: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.segments = segments

    def forward(self, clip: Tensor) -> Tensor:
        """Classify clips.

        Args:
            clip: (B, T, C, S, S) float32, segments oldest first.

        Returns:
            (B, K) logits.
        """
        features = self.backbone(clip.flatten(0, 1))  # (B*T, D)
        logits: Tensor = self.head(features.unflatten(0, (-1, self.segments)))
        return logits


def build_model(
    config: ModelConfig, in_channels: int, classes: int, segments: int, weights: str | Path | None = None
) -> ClipModel:
    """Build a clip model.

    Args:
        config: The architecture.
        in_channels: Input channels C.
        classes: Number of classes K.
        segments: Number of segments T.
        weights: Initial weights of the backbone, see ``build_backbone``.

    Raises:
        TrainingError: The weights cannot be had or do not fit.
    """
    backbone = build_backbone(config.backbone, in_channels=in_channels, weights=weights)
    head: Head
    if config.temporal == "tsn":
        head = ConsensusHead(backbone.feature_size, classes, config.dropout)
    else:
        head = TemporalConvolutionHead(backbone.feature_size, classes, config.dropout, config.hidden)
    return ClipModel(backbone, head, segments)
