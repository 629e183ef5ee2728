"""The generated figure as a live camera: runs anywhere and provides the performed action as ground truth."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kd_edge import recipes
from kd_edge.artifact import Band
from kd_edge.data.synthetic.dataset import MODALITIES, SyntheticStream
from kd_edge.errors import ConfigError
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.types import Frame


class SyntheticOptions(BaseModel):
    """Keys of ``synthetic:?key=value&key=value``; they override a camera file's ``fps``, ``width_px``, ``height_px``.

    Attributes:
        modality: None follows the camera file's ``band``, or the model: ``rgb`` for an RGB model, ``nir`` otherwise.
        seed: Determines body, clothes, view and the order of actions.
        height_px: Image height; by default as in the generated data set.
        width_px: Image width.
        fps: Frame rate, 1/s.
        actions: Names of the actions to perform, separated by commas; empty means all ten.
        frames: Number of frames; 0 never ends.
        realtime: False renders as fast as frames are read, with the same stamps, and is reproducible.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    modality: Literal["rgb", "nir"] | None = None
    seed: int = Field(default=0, ge=0)
    height_px: int = Field(default=120, ge=32, le=1080)
    width_px: int = Field(default=160, ge=32, le=1920)
    fps: float = Field(default=30.0, ge=1, le=240)
    actions: str = ""
    frames: int = Field(default=0, ge=0)
    realtime: bool = True


class SyntheticCamera:
    """An articulated figure that performs one action after the other; see ``Camera``."""

    dtype: Dtype | None = "uint8"
    can_vanish = False

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted, *, clock: Clock = MONOTONIC) -> None:
        options = _options(name, config)
        modality = options.modality or ("rgb" if (config.band or wanted.band) == "rgb" else "nir")
        if config.band not in (None, modality):
            raise ConfigError(
                f"camera {name} with band '{config.band}' shows a figure in '{modality}'",
                f"a band of the figure's, {' or '.join(MODALITIES)}, the same as its modality",
                f'band = "{modality}", or leave band out',
            )
        self.name = "synthetic" if name.startswith("synthetic:") else name
        self.band: Band | None = modality
        self.channels: Channels | None = 3 if modality == "rgb" else 1
        self.fps: float | None = options.fps
        self.live = options.realtime
        self.timeouts: TimeOuts = config
        self._options, self._clock = options, clock
        actions = tuple(a.strip() for a in options.actions.split(",") if a.strip()) or None
        self._figure = SyntheticStream(
            modality, options.seed, options.height_px, options.width_px, options.fps, actions=actions
        )
        self._started_ns = 0
        self._next = 0

    @property
    def ended(self) -> bool:
        """Whether the last frame has been read."""
        return 0 < self._options.frames <= self._next

    def open(self) -> None:
        """Restart the performance."""
        self._next = 0
        self._started_ns = self._clock.now_ns() if self.live else 0

    def read(self, timeout_seconds: float) -> Frame | None:
        """Render the next frame when it is due; missed frames are skipped, as with a real camera."""
        if self.ended:
            return None
        k = self._next
        if self.live:
            k = max(k, int((self._clock.now_ns() - self._started_ns) * self._options.fps / 1e9))
            ahead = (self._stamp_ns(k) - self._clock.now_ns()) / 1e9
            self._clock.sleep(max(0.0, min(ahead, timeout_seconds)))
            if ahead > timeout_seconds:
                return None
        image, truth = self._figure.frame(k)
        self._next = k + 1
        return Frame(image, self._stamp_ns(k), k, self.name, truth)

    def close(self) -> None:
        """Nothing to release."""

    def _stamp_ns(self, k: int) -> int:
        return self._started_ns + round(k * 1e9 / self._options.fps)


def _options(name: str, config: CameraConfig) -> SyntheticOptions:
    file_keys = config.model_dump(include={"fps", "width_px", "height_px"}, exclude_none=True)
    return recipes.validate({**file_keys, **config.query}, SyntheticOptions, f"camera {name}")
