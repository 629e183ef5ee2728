"""What a comparator's run is told, and what a TSTDDs run is: one TOML file as a frozen pydantic model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.models.config import BackboneName
from kd_edge.study.classical.config import Positive, RunConfig, Share
from kd_edge.window import FixedWindow, Window

Pooling = Literal["max", "sum"]


class StreamConfig(BaseModel):
    """The networks of all three streams and their training.

    Attributes:
        backbone: Image network.
        initial_weights: None (random), ``"imagenet"`` or a state-dict file, see ``models.build_backbone``.
        flow_fields: L, flow fields per stack of the local stream.
        epochs: Passes over the training clips.
        draws_per_clip: Random inputs taken of every clip in an epoch.
        batch_size: Inputs per step.
        learning_rate: Highest learning rate of a one-cycle schedule, AdamW.
        weight_decay: Weight decay of all parameters.
        dropout: Probability of dropping a feature in training.
        layers: Which stages' feature maps are pooled, from 1; two, like the two layers per stream of the letter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    backbone: BackboneName = "resnet18"
    initial_weights: str | None = None
    flow_fields: int = Field(10, ge=1, le=64)
    epochs: int = Field(20, ge=1)
    draws_per_clip: int = Field(2, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(0.001, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    dropout: float = Field(0.5, ge=0, lt=1)
    layers: tuple[Annotated[int, Field(ge=1, le=4)], Annotated[int, Field(ge=1, le=4)]] = (2, 3)

    @model_validator(mode="after")
    def _ordered(self) -> StreamConfig:
        if not self.layers[0] < self.layers[1]:
            raise ValueError(f"layers {self.layers} must increase")
        return self


class TrackConfig(BaseModel):
    """Dense trajectories; the limits are those of 320 x 240 pixels, as shares of the frame's side.

    Attributes:
        frames: Number of frames of one track.
        stride_px: Distance between the points of the grid.
        minimum_spread: A track whose x and y deviate less is static and dropped.
        maximum_spread: A track whose x or y deviates more is runaway and dropped.
        maximum_step: A track that makes most of its way in a single longer step is runaway and dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    frames: int = Field(15, ge=2, le=100)
    stride_px: int = Field(2, ge=1, le=64)
    minimum_spread: Share = 0.007
    maximum_spread: Share = 0.2
    maximum_step: Share = 0.08

    @model_validator(mode="after")
    def _ordered(self) -> TrackConfig:
        if not self.minimum_spread < self.maximum_spread:
            raise ValueError(
                f"minimum_spread ({self.minimum_spread}) must be below maximum_spread ({self.maximum_spread})"
            )
        return self


class CodingConfig(BaseModel):
    """Codebooks and coding, the same for every kind of descriptor.

    Attributes:
        dimensions: Number of values of a descriptor after PCA.
        codewords: Number of codewords of each codebook.
        neighbours: Number k of nearest codewords that the LLC codes a descriptor by.
        pooling: How a video's codes become one vector: their largest value or their sum, codeword by codeword.
        sampled_clips: At most this many training clips, drawn at random, give descriptors to the codebooks.
        sampled_descriptors: At most this many of a kind make a codebook.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    dimensions: int = Field(64, ge=1)
    codewords: int = Field(1024, ge=2)
    neighbours: int = Field(5, ge=1)
    pooling: Pooling = "max"
    sampled_clips: int = Field(256, ge=1)
    sampled_descriptors: int = Field(40_000, ge=2)


class TstddsConfig(RunConfig):
    """One TSTDDs run.

    Attributes:
        validation_subjects: Training subjects held out to choose C among ``c_choices``; none takes ``c``.
        modality: Image modality.
        frame_px: Side S of the square frames: the shorter side after resizing, the central part of the longer one.
        window: Intensity window that takes a raw value to [0, 1].
        streams: The three networks.
        tracks: Settings of the dense trajectories.
        coding: How descriptors become one vector.
        c: Weight C of the SVM's training errors, without validation subjects.
        c_choices: Values of C to choose from by validation accuracy, with validation subjects; of equally good ones the
            smallest.
    """

    kind: Literal["tstdds"] = "tstdds"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "tstdds"
    modality: str
    frame_px: Annotated[int, Field(ge=16, le=512)] = 96
    window: Window = FixedWindow()
    streams: StreamConfig = StreamConfig()
    tracks: TrackConfig = TrackConfig()
    coding: CodingConfig = CodingConfig()
    c: Positive = 1.0
    c_choices: tuple[Positive, ...] = Field((0.01, 0.1, 1.0, 10.0, 100.0), min_length=1)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The one that is looked at."""
        return (self.modality,)
