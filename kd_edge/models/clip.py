"""The clip model: T segment frames through one backbone, then a temporal head."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.backbones import Backbone, BackboneName, build_backbone
from kd_edge.models.heads import ConsensusHead, RelationHead, Relations, TemporalConvolutionHead
from kd_edge.models.shift import add_shifts

Head = ConsensusHead | TemporalConvolutionHead | RelationHead
Temporal = Literal["tsn", "tconv", "trn", "tsm", "tsm_causal"]


class ModelConfig(BaseModel):
    """The architecture of a teacher or a student; with channels, classes and segments it rebuilds the module.

    Attributes:
        backbone: Image network.
        temporal: ``tsn`` averages the segments' logits; ``tconv`` is two temporal convolutions and sees their order;
            ``trn`` sums relations of 2 to T ordered segments; ``tsm`` shifts channels inside the backbone between
            neighbouring segments, for clips; ``tsm_causal`` only from the past, so that it can stream with explicit
            state. Both TSM average the segments' logits.
        dropout: On the features, in training.
        hidden: Channels of the temporal convolutions (``tconv`` only).
        bottleneck: Size of the projected features (``trn`` only).
        relations_per_scale: Largest number of relations of one scale (``trn`` only).
        relations: Which of them an evaluation takes: ``fixed`` as many, evenly chosen, or ``all`` (``trn`` only).
        fold_div: One in ``fold_div`` channels moves from each direction (``tsm`` and ``tsm_causal`` only).
        partial_bn: Only the backbone's first batch norm trains; the others keep the statistics and the scale of the
            initial weights (Wang et al., TSN). Sensible with pretrained weights only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    backbone: BackboneName = "resnet18"
    temporal: Temporal = "tsn"
    dropout: float = Field(0.5, ge=0, lt=1)
    hidden: int = Field(256, ge=1, le=4096)
    bottleneck: int = Field(256, ge=1, le=4096)
    relations_per_scale: int = Field(3, ge=1, le=100)
    relations: Relations = "fixed"
    fold_div: int = Field(8, ge=2, le=64)
    partial_bn: bool = False

    @property
    def has_shifts(self) -> bool:
        """Whether segments are mixed inside the backbone."""
        return self.temporal in ("tsm", "tsm_causal")

    @model_validator(mode="after")
    def _can_shift(self) -> ModelConfig:
        if self.has_shifts and self.backbone in ("tiny", "bninception"):
            raise ValueError(
                f"temporal '{self.temporal}' shifts inside residual blocks and backbone '{self.backbone}' has none: "
                "take another backbone, or temporal 'tconv' or 'trn'"
            )
        return self


class ClipModel(nn.Module):
    """Class logits of a clip.

    Args:
        backbone: Frame to feature.
        head: Features of the segments to logits.
        segments: Number of segments T.
        partial_bn: Only the backbone's first batch norm trains.
    """

    def __init__(self, backbone: Backbone, head: Head, segments: int, *, partial_bn: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.segments = segments
        self._fixed_norms = _later_norms(backbone) if partial_bn else []
        for norm in self._fixed_norms:
            norm.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> ClipModel:
        """Set the mode; batch norms that are fixed stay in eval mode."""
        super().train(mode)
        for norm in self._fixed_norms:
            norm.eval()
        return self

    def forward(self, clip: Tensor) -> Tensor:
        """Classify clips.

        Args:
            clip: (B, T, C, S, S) float32, segments oldest first.

        Returns:
            (B, K) logits.

        Raises:
            TrainingError: Another number of segments than the model's.
        """
        if clip.ndim != 5 or clip.shape[1] != self.segments:
            raise TrainingError(
                f"clips of shape {tuple(clip.shape)}", f"(batch, {self.segments} segments, C, S, S)", "change segments"
            )
        features = self.backbone(clip.flatten(0, 1))  # (B*T, D)
        logits: Tensor = self.head(features.unflatten(0, (-1, self.segments)))
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
        ConfigError: Options that do not go together, or too few segments for the temporal kind.
        TrainingError: The weights cannot be had or do not fit.
        MissingExtraError: The package of the weights is not installed.
    """
    backbone = build_backbone(config.backbone, in_channels=in_channels, weights=weights)
    if config.has_shifts:
        if segments < 2:
            raise ConfigError(
                f"temporal '{config.temporal}' with {segments} segment", "at least 2 segments", "raise segments"
            )
        add_shifts(backbone, segments, config.fold_div, causal=config.temporal == "tsm_causal")
    return ClipModel(backbone, _head(config, backbone, classes, segments), segments, partial_bn=config.partial_bn)


def _head(config: ModelConfig, backbone: Backbone, classes: int, segments: int) -> Head:
    sizes = (backbone.feature_size, classes, config.dropout)
    if config.temporal == "tconv":
        return TemporalConvolutionHead(*sizes, config.hidden)
    if config.temporal == "trn":
        return RelationHead(
            *sizes,
            hidden=config.bottleneck,
            segments=segments,
            per_scale=config.relations_per_scale,
            evaluate=config.relations,
        )
    return ConsensusHead(*sizes)
