"""The clip model: a backbone applied to T segment frames, followed by a temporal head."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.backbones import Backbone, add_regression, build_backbone
from kd_edge.models.config import ModelConfig
from kd_edge.models.heads import ConsensusHead, PooledConvolutionHead, RelationHead, TemporalConvolutionHead
from kd_edge.models.shift import add_shifts
from kd_edge.types import Float32

Head = ConsensusHead | TemporalConvolutionHead | PooledConvolutionHead | RelationHead


class ClipModel(nn.Module):
    """Computes the class logits of a clip.

    Args:
        backbone: Maps a frame to a feature.
        head: Maps the features of the segments to logits.
        segments: Number of segments T.
        partial_bn: Train only the backbone's first batch norm.
    """

    def __init__(self, backbone: Backbone, head: Head, segments: int, *, partial_bn: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.segments = segments
        if partial_bn:
            backbone.fix(_later_norms(backbone))

    def forward(self, clip: Tensor) -> Tensor:
        """Classify clips.

        Args:
            clip: (B, T, C, S, S) float32, segments oldest first.

        Returns:
            (B, K) logits.

        Raises:
            TrainingError: The number of segments differs from the model's.
        """
        if clip.ndim != 5 or clip.shape[1] != self.segments:
            raise TrainingError(
                f"clips of shape {tuple(clip.shape)}", f"(batch, {self.segments} segments, C, S, S)", "change segments"
            )
        features = self.backbone(clip.flatten(0, 1))  # (B*T, D)
        logits: Tensor = self.head(features.unflatten(0, (-1, self.segments)))
        return logits

    def answer(self, clip: Float32) -> Float32:
        """``forward`` for NumPy arrays: clips (B, T, C, S, S) float32 to logits (B, K) float32."""
        with torch.inference_mode():
            logits: Float32 = self(torch.from_numpy(clip)).numpy()
        return logits


def _later_norms(backbone: Backbone) -> list[nn.BatchNorm2d]:
    return [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)][1:]


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
        ConfigError: The options are incompatible, or there are too few segments for the temporal model.
        TrainingError: The weights are not available or do not fit.
        MissingExtraError: The package with the weights is not installed.
    """
    backbone = build_backbone(config.backbone, in_channels=in_channels, weights=weights)
    if config.regressed:
        add_regression(backbone, config.regressed, keep_feature=config.reads != "targets")
    if config.has_shifts:
        if segments < 2:
            raise ConfigError(
                f"temporal '{config.temporal}' with {segments} segment", "at least 2 segments", "raise segments"
            )
        add_shifts(backbone, segments, config.fold_div, causal=config.temporal == "tsm_causal")
    return ClipModel(backbone, build_head(config, backbone, classes, segments), segments, partial_bn=config.partial_bn)


def build_head(config: ModelConfig, backbone: Backbone, classes: int, segments: int) -> Head:
    """Build a temporal head with random weights, see ``build_model``."""
    sizes = (backbone.feature_size, classes, config.dropout)
    if config.temporal == "tconv":
        return TemporalConvolutionHead(*sizes, config.hidden, dropout_at=config.dropout_at)
    if config.temporal == "tcn":
        return PooledConvolutionHead(*sizes, hidden=config.hidden, segments=segments)
    if config.temporal == "trn":
        return RelationHead(
            *sizes,
            projected=config.bottleneck,
            hidden=config.bottleneck if config.relation_hidden is None else config.relation_hidden,
            segments=segments,
            per_scale=config.relations_per_scale,
            evaluate=config.relations,
            dropout_at=config.dropout_at,
        )
    return ConsensusHead(*sizes)
