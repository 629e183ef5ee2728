"""Architectures as settings: reading a recipe needs neither torch nor torchvision."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

BackboneName = Literal[
    "resnet50",
    "resnet18",
    "resnet10_thin",
    "resnet8_grid",
    "cnn4_grid",
    "mobilenet_v3_small",
    "efficientnet_lite0",
    "bninception",
    "tiny",
]
BACKBONES: tuple[str, ...] = get_args(BackboneName)

Temporal = Literal["tsn", "tconv", "tcn", "trn", "tsm", "tsm_causal"]
Relations = Literal["fixed", "all"]
DropoutAt = Literal["all", "features"]
Reads = Literal["both", "targets", "features"]

Network = Literal["vgg16", "resnet18", "conv1d"]
Variant = Literal["paper", "official"]
Similarity = Literal["identity", "batch", "running"]
Place = Literal["block1", "block2", "block3", "block4", "block5", "fc1", "fc2"]
PLACES: tuple[Place, ...] = get_args(Place)
"""Layers of every sensor network that can be fused and tapped, from the input to the logits."""

SMALLEST_POINTS = 32
"""Points of the shortest signal: every sensor network halves its input five times."""


class ModelConfig(BaseModel):
    """The architecture of a teacher or a student; with channels, classes and segments it rebuilds the module.

    Attributes:
        backbone: Image network.
        temporal: ``tsn`` averages the segments' logits; ``tconv`` is two temporal convolutions and sees their order;
            ``tcn`` is three with pooling between them, for many segments;
            ``trn`` sums relations of 2 to T ordered segments; ``tsm`` shifts channels inside the backbone between
            neighbouring segments, for clips; ``tsm_causal`` only from the past, so that it can stream with explicit
            state. Both TSM average the segments' logits.
        dropout: Probability of dropping a feature in training.
        dropout_at: Where ``tconv`` and ``trn`` drop out: ``features`` only what the backbone puts out, as the code of
            TSN, TRN and SAKDN does; ``all`` also what the classifiers see. ``tsn`` and both TSM have the features only,
            ``tcn`` the classifier only.
        hidden: Channels of the temporal convolutions (``tconv`` and ``tcn`` only).
        bottleneck: Size of the projected features (``trn`` only).
        relation_hidden: Size of a relation's hidden layer, 256 in TRN's own code; None is that of the projected
            features (``trn`` only).
        relations_per_scale: Largest number of relations of one scale (``trn`` only).
        relations: Relations per scale in an evaluation: ``fixed`` as many, evenly chosen, or ``all`` (``trn`` only).
        fold_div: One in ``fold_div`` channels moves from each direction (``tsm`` and ``tsm_causal`` only).
        regressed: Numbers that the backbone regresses in every frame beside its feature, for the head to read.
        reads: What the head reads of a backbone that regresses: its feature and the numbers, the numbers alone
            (``targets``), or the feature alone: a backbone that is trained to regress keeps nothing of it then.
        partial_bn: Only the backbone's first batch norm trains; the others keep the statistics and the scale of the
            initial weights (Wang et al., TSN). Sensible with pretrained weights only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    backbone: BackboneName = "resnet18"
    temporal: Temporal = "tsn"
    dropout: float = Field(0.5, ge=0, lt=1)
    dropout_at: DropoutAt = "all"
    hidden: int = Field(256, ge=1, le=4096)
    bottleneck: int = Field(256, ge=1, le=4096)
    relation_hidden: int | None = Field(None, ge=1, le=4096)
    relations_per_scale: int = Field(3, ge=1, le=100)
    relations: Relations = "fixed"
    fold_div: int = Field(8, ge=2, le=64)
    partial_bn: bool = False
    regressed: int = Field(0, ge=0, le=65_536)
    reads: Reads = "both"

    @property
    def has_shifts(self) -> bool:
        """Whether segments are mixed inside the backbone."""
        return self.temporal in ("tsm", "tsm_causal")

    @model_validator(mode="after")
    def _read(self) -> ModelConfig:
        if self.reads == "features" and self.regressed:
            raise ValueError(f"reads = 'features', and nobody reads the {self.regressed} regressed numbers: set 0")
        return self

    @model_validator(mode="after")
    def _can_shift(self) -> ModelConfig:
        if self.has_shifts and self.backbone in ("tiny", "cnn4_grid", "bninception"):
            raise ValueError(
                f"temporal '{self.temporal}' shifts inside residual blocks and backbone '{self.backbone}' has none: "
                "take another backbone, or temporal 'tconv' or 'trn'"
            )
        return self


class SensorModelConfig(BaseModel):
    """The architecture of the sensor networks; with sensors, classes and points it rebuilds the module.

    Attributes:
        network: ``vgg16`` (with batch norm) or ``resnet18`` on images of a signal, ``conv1d`` on the signal itself.
        width: Size of fc1 and fc2; the size of the class vectors where fc2 is held to them (300 of GloVe).
        fusion: Layers at which the networks are fused; none for independent networks.
        variant: How the fusion is computed, see ``SPAMFM``.
        similarity: What the fusion takes for the sensors' similarity in evaluation, see ``SPAMFM``; ``running`` for
            answers that depend on no neighbour and keep the accuracy of training.
        attention: Whether the sensors' logits are weighted by learnt weights, per sample, instead of equally.
        dropout: Probability of dropping an output of fc1 in training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: Network = "vgg16"
    width: int = Field(300, ge=1, le=4096)
    fusion: tuple[Place, ...] = PLACES
    variant: Variant = "official"
    similarity: Similarity = "running"
    attention: bool = False
    dropout: float = Field(0.5, ge=0, lt=1)

    @field_validator("fusion")
    @classmethod
    def _each_once(cls, places: tuple[Place, ...]) -> tuple[Place, ...]:
        if len(set(places)) != len(places):
            raise ValueError(f"fusion names a layer twice: {', '.join(places)}")
        return tuple(place for place in PLACES if place in places)


def fitting_points(network: Network, points: int) -> int:
    """The least number of points, not below ``points``, that a network can halve five times."""
    if network == "conv1d":
        return max(points, SMALLEST_POINTS)
    return -(-max(points, 1) // SMALLEST_POINTS) * SMALLEST_POINTS
