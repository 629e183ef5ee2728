"""What a run of the comparators that fuse depth with wearable sensors is: CRC, CRC-2, CNN + LSTM."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.study.classical.config import Positive, RunConfig

View = Literal["front", "side", "top"]
VIEWS: tuple[View, ...] = get_args(View)
Projection = Literal["occupied", "counts"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MotionConfig(_Strict):
    """Depth motion maps.

    Attributes:
        views: Views whose maps are taken.
        trim_frames: Number of frames left out at either end of a clip, where people stand still.
        bin_mm: Depth of a bin of the side and top views.
        range_mm: Farther pixels count as the last bin.
        projection: What a bin holds: 1 where there is any pixel, or the number of pixels.
        silhouette: Whether the front view counts pixels that only one of two frames has measured.
        crop_share: Rows and columns that move less than this share of the most moving one lie outside the box.
        height: Rows of the front and side views at their fixed size.
        width: Columns of the front and top views.
        depth: Columns of the side view, rows of the top view.
    """

    views: Annotated[tuple[View, ...], Field(min_length=1)] = VIEWS
    trim_frames: int = Field(5, ge=0)
    bin_mm: int = Field(30, ge=1)
    range_mm: int = Field(4000, ge=100, le=20_000)
    projection: Projection = "occupied"
    silhouette: bool = False
    crop_share: Fraction = 0.05
    height: int = Field(32, ge=1, le=480)
    width: int = Field(16, ge=1, le=640)
    depth: int = Field(10, ge=1, le=640)


class _Fusion(RunConfig):
    """Which modalities are fused.

    Attributes:
        depth: Depth modality; empty for the sensors alone.
        sensors: Modalities with signals of wearable sensors; none for depth alone.
        motion: Settings of the depth motion maps.
    """

    depth: str = "depth"
    sensors: tuple[str, ...] = ("accelerometer", "gyroscope")
    motion: MotionConfig = MotionConfig()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Depth first, then the sensors."""
        return ((self.depth,) if self.depth else ()) + self.sensors

    @model_validator(mode="after")
    def _something(self) -> _Fusion:
        if not self.depth and not self.sensors:
            raise ValueError("depth is empty and sensors too: nothing to recognise actions by")
        return self

    @property
    def modality(self) -> str:
        """What it looks at, as a table names it."""
        return "+".join(self.modalities)


class CrcConfig(_Fusion):
    """One run of the collaborative representation classifier.

    Attributes:
        fusion: ``features`` joins the vectors before one classifier (CRC), ``decisions`` pools the opinions of one
            classifier per modality (CRC-2); without effect where there is one modality.
        normalisation: Scaling of a motion map: ``max`` divides by its largest value, ``root`` takes the roots of its
            values and scales them to length 1.
        variance: Share of the training vectors' variance that the principal axes of the depth vectors keep.
        windows: Equal parts of a signal whose statistics are taken.
        scaling: Scaling of the statistics: ``columns`` divides each by its largest absolute value of the training
            clips, ``none`` leaves them as they are.
        depth_weight: Weight of depth: of its classifier in the pool, or of its squared length in the joined vector.
        regularisation: Choices of lambda; of several the one that is best when each training subject is left out once,
            the largest of equals.
    """

    kind: Literal["crc"] = "crc"
    name: Name = "crc"
    fusion: Literal["features", "decisions"] = "features"
    normalisation: Literal["max", "root"] = "max"
    variance: Annotated[float, Field(gt=0, lt=1)] = 0.99
    windows: int = Field(6, ge=1, le=100)
    scaling: Literal["columns", "none"] = "columns"
    depth_weight: Annotated[float, Field(gt=0, lt=1)] = 0.5
    regularisation: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.0001, 0.001, 0.01, 0.1, 1.0)


class CnnLstmConfig(_Fusion):
    """One run of a CNN on motion images and a CNN with an LSTM on signals, whose decisions are pooled.

    Attributes:
        points: Number of points of a signal, evenly over the clip.
        channels: Output channels of the motion network's first convolution, doubled from stage to stage; the signal
            network starts with twice as many.
        hidden: Size of the LSTM's state.
        dropout: Probability of dropping a feature before either classifier, in training.
        epochs: Passes over the training clips.
        batch_size: Clips per step.
        learning_rate: Highest learning rate of a one-cycle schedule, AdamW.
        weight_decay: Weight decay of all parameters.
        augment: Whether training inputs are moved, stretched and scaled at random.
        depth_weight: Weight of the depth network in the pool.
    """

    kind: Literal["cnn_lstm"] = "cnn_lstm"
    name: Name = "cnn_lstm"
    points: int = Field(96, ge=8, le=1024)
    channels: int = Field(16, ge=1, le=256)
    hidden: int = Field(64, ge=1, le=1024)
    dropout: Fraction = 0.5
    epochs: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=2)
    learning_rate: Positive = 0.003
    weight_decay: float = Field(0.01, ge=0)
    augment: bool = True
    depth_weight: Annotated[float, Field(gt=0, lt=1)] = 0.5
