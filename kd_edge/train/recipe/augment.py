"""Random changes of a training clip: one crop and mirroring for all its modalities, each modality's own intensities."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Augment(BaseModel):
    """Random changes of a training clip.

    A student and its teacher share the student's crop and flip; each has its own changes of intensity. These are the
    same in all frames of a clip, except noise.

    Attributes:
        crop: ``random`` draws a square of any size in ``crop_scale`` and any place in ``shift``; ``multi_scale`` is
            TSN's: height and width from 1, 0.875, 0.75 and 0.66 of the shorter side, at most one step apart, at one of
            13 places.
        crop_scale: Range of the square crop's side, as a share of the frame's shorter side; of a person region's side,
            where it may be above 1.
        shift: Largest offset of the crop's centre, as a share of the offset that keeps the crop inside the frame; in a
            person region, as a share of the region's side.
        rotation_degrees: The crop is rotated by up to this angle either way; pixels outside the frame are raw 0.
        quarter_turns: The crop is also rotated by 0, 90, 180 or 270 degrees with equal probability: for a camera that
            looks straight down, in whose pictures no direction is up.
        aspect: A person region's crop becomes up to this share taller or wider than square.
        erase: Share of clips of which one rectangle, of 2 to 20 % of the network's input, is black in all frames.
        flip: Mirror half of the clips; an error if the data set does not allow it.
        gain: The intensity window's width changes by up to this share.
        offset: The intensity window moves by up to this share of its width.
        vignetting: The corner furthest from the (slightly moved) centre darkens by up to this share.
        blur: Standard deviation of a Gaussian blur, up to this many pixels of the network's input.
        brightness: Intensities are multiplied by a factor that differs from 1 by up to this value.
        contrast: Differences from the clip's mean grey are multiplied by such a factor.
        saturation: Differences of three-channel clips' colours from their grey are multiplied by such a factor.
        colour: Three-channel clips get their channels shuffled and mixed with the mean by a random share up to this;
            so that clothing and walls do not identify a clip.
        pattern_noise: Standard deviation of one Gaussian noise image added to the network's input in all frames of a
            clip, like the fixed pattern of an infrared sensor between two shutter corrections.
        noise: Standard deviation of Gaussian noise on the network's input, new in every frame.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    crop: Literal["random", "multi_scale"] = "random"
    crop_scale: tuple[Annotated[float, Field(gt=0, le=2)], Annotated[float, Field(gt=0, le=2)]] = (0.66, 1.0)
    shift: Share = 1.0
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    quarter_turns: bool = False
    aspect: Share = 0.0
    erase: Share = 0.0
    flip: bool = False
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    offset: Annotated[float, Field(ge=0, lt=1)] = 0.0
    vignetting: Share = 0.0
    blur: Annotated[float, Field(ge=0, le=20)] = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    colour: Share = 0.0
    pattern_noise: Annotated[float, Field(ge=0)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale needs its smaller value first")
        return self

    @property
    def changes_planes(self) -> bool:
        """Whether any change applies before a clip is normalised."""
        return any((self.vignetting, self.blur, self.brightness, self.contrast, self.saturation, self.erase))


class SignalJitter(BaseModel):
    """Random changes of a training clip's signals: shift and stretch are shared by all sensors, the others are not.

    Attributes:
        shift: The time span in use moves by up to this share of the clip's length, either way; beyond its ends a
            signal keeps its last value.
        stretch: The length of the time span changes by up to this share.
        gain: Values are multiplied by a factor that differs from 1 by up to this value.
        rotation_degrees: The axes are rotated about a random direction by up to this angle, as if the sensor were worn
            differently.
        noise: Standard deviation of Gaussian noise, as a share of the sensor's range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stretch: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
