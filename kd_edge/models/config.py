"""Settings of the architectures; they import neither torch nor torchvision, so that recipes can be read without."""

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
"""Smallest number of points of a signal: every sensor network halves its input five times."""


class ModelConfig(BaseModel):
    """The architecture of a teacher or a student; with channels, classes and segments it defines the module.

    Attributes:
        backbone: Image network.
        temporal: Temporal model. ``tsn`` averages the segments' logits; ``tconv`` applies two temporal convolutions and
            depends on the order; ``tcn`` applies three with pooling between them, for many segments; ``trn`` sums
            relations of 2 to T ordered segments; ``tsm`` shifts channels inside the backbone between neighbouring
            segments, for clips; ``tsm_causal`` shifts from the past only, so that it can stream with explicit state.
            Both TSM variants average the segments' logits.
        dropout: Probability of dropping a feature in training.
        dropout_at: Where ``tconv`` and ``trn`` apply dropout: ``features`` to the backbone's output only, as the code
            of TSN, TRN and SAKDN does; ``all`` also to the input of the classifiers. ``tsn`` and both TSM variants
            apply it to the features only, ``tcn`` to the classifier's input only.
        hidden: Channels of the temporal convolutions (``tconv`` and ``tcn`` only).
        bottleneck: Size of the projected features (``trn`` only).
        relation_hidden: Size of a relation's hidden layer, 256 in TRN's own code; None means the size of the projected
            features (``trn`` only).
        relations_per_scale: Largest number of relations per scale (``trn`` only).
        relations: Relations per scale in evaluation: ``fixed`` uses the same number, evenly chosen; ``all`` uses all
            of them (``trn`` only).
        fold_div: One in ``fold_div`` channels is shifted from each direction (``tsm`` and ``tsm_causal`` only).
        regressed: Number of values that the backbone regresses in every frame in addition to its feature, as input of
            the head.
        reads: What the head reads from a regressing backbone: feature and values (``both``), the values alone
            (``targets``), or the feature alone (``features``), in which case the regression is not kept.
        partial_bn: Train only the backbone's first batch norm; the others keep the statistics and the scale of the
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
    def _check_reads(self) -> ModelConfig:
        if self.reads == "features" and self.regressed:
            raise ValueError(f"reads = 'features' ignores the {self.regressed} regressed numbers: set regressed to 0")
        return self

    @model_validator(mode="after")
    def _check_shifts(self) -> ModelConfig:
        if self.has_shifts and self.backbone in ("tiny", "cnn4_grid", "bninception"):
            raise ValueError(
                f"temporal '{self.temporal}' shifts inside residual blocks and backbone '{self.backbone}' has none: "
                "use another backbone, or temporal 'tconv' or 'trn'"
            )
        return self


class SensorModelConfig(BaseModel):
    """The architecture of the sensor networks; with sensors, classes and points it defines the module.

    Attributes:
        network: ``vgg16`` (with batch norm) or ``resnet18`` on images of a signal, ``conv1d`` on the signal itself.
        width: Size of fc1 and fc2; must equal the size of the class vectors if fc2 is trained to match them (300 for
            GloVe).
        fusion: Layers at which the networks are fused; empty for independent networks.
        variant: How the fusion is computed, see ``SPAMFM``.
        similarity: The samples' similarity used by the fusion in evaluation, see ``SPAMFM``; ``running`` makes
            predictions independent of the other samples of a batch and keeps the accuracy of training.
        attention: Whether the sensors' logits are weighted per sample by learnt weights instead of equally.
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
    def _check_unique(cls, places: tuple[Place, ...]) -> tuple[Place, ...]:
        if len(set(places)) != len(places):
            raise ValueError(f"fusion names a layer twice: {', '.join(places)}")
        return tuple(place for place in PLACES if place in places)


def fitting_points(network: Network, points: int) -> int:
    """Return the smallest number of points, at least ``points``, that a network can halve five times."""
    if network == "conv1d":
        return max(points, SMALLEST_POINTS)
    return -(-max(points, 1) // SMALLEST_POINTS) * SMALLEST_POINTS
