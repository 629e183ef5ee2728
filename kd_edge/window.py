"""Intensity windows, which map raw values between two limits to [0, 1]; the limits are fixed or follow the frames."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.crop import RawRange
from kd_edge.person import LowPass, grid_step
from kd_edge.types import Float32, Image

_BLACK, _WHITE = np.float32(0), np.float32(1)


class FixedWindow(BaseModel):
    """Intensity window with fixed limits: ``low`` becomes 0, ``high`` becomes 1, values outside are clipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["fixed"] = "fixed"
    low: float = 0.0
    high: float = 255.0

    @model_validator(mode="after")
    def _ordered(self) -> FixedWindow:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self


class PercentileWindow(BaseModel):
    """Intensity window that follows the frame's own percentiles, smoothed over time.

    Attributes:
        low_percent: Percentile of the resized frame that becomes 0.
        high_percent: Percentile of the resized frame that becomes 1.
        time_constant_ms: Time constant of the first-order low-pass on both limits, by the frames' stamps; 0 follows
            every frame.
        ignore_value: Raw value that means "no measurement" (0 for depth); left out of the percentiles.
        minimum_span: Smallest width of the window in raw units, so that noise in a flat frame is not amplified.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["percentile"] = "percentile"
    low_percent: float = Field(1.0, ge=0, le=100)
    high_percent: float = Field(99.0, ge=0, le=100)
    time_constant_ms: float = Field(500.0, ge=0)
    ignore_value: int | None = None
    minimum_span: float = Field(8.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> PercentileWindow:
        if not self.low_percent < self.high_percent:
            raise ValueError(f"low_percent ({self.low_percent}) must be below high_percent ({self.high_percent})")
        return self


class RelativeWindow(RawRange):
    """Intensity window around the person: the median of the foreground's raw values becomes 0.5, smoothed over time.

    Movements towards the camera and away from it look the same at any distance of the person.

    Attributes:
        low: Smallest raw value of the foreground.
        high: Largest raw value of the foreground; larger values count as 0 (no measurement), which becomes black.
        span: Raw units from the median to the values that become 0 and 1.
        time_constant_ms: Time constant of the first-order low-pass, as in ``PercentileWindow``.
        minimum_share: Frames with a smaller share of foreground pixels are ignored.
    """

    kind: Literal["relative"] = "relative"
    low: int = Field(1, ge=1, le=65535)
    span: float = Field(600.0, gt=0)
    time_constant_ms: float = Field(500.0, ge=0)
    minimum_share: float = Field(0.005, ge=0, le=1)

    @property
    def ignore_value(self) -> int:
        """Raw value that means "no measurement"."""
        return 0


AnyWindow = FixedWindow | PercentileWindow | RelativeWindow
Window = Annotated[AnyWindow, Field(discriminator="kind")]


def percentile_limits(resized: Image, window: PercentileWindow) -> tuple[float, float]:
    """Compute the limits of one frame, before smoothing: order statistics (nearest rank) on a grid of pixels.

    Returns:
        (low, high) in raw units; both NaN if every pixel is ``ignore_value``.
    """
    step = grid_step(resized.shape)
    pixels = resized[::step, ::step].flatten()
    if window.ignore_value is not None:
        pixels = pixels[pixels != window.ignore_value]
    if pixels.size == 0:
        return math.nan, math.nan
    low, high = (round(p / 100 * (pixels.size - 1)) for p in (window.low_percent, window.high_percent))
    pixels.sort(kind="stable")  # radix sort: twice as fast as partitioning for so few pixels
    return float(pixels[low]), float(pixels[high])


def own_limits(resized: Image, window: AnyWindow) -> tuple[float, float]:
    """Compute the window limits from one frame alone, before smoothing.

    Returns:
        (low, high) in raw units: the percentiles, or the foreground's median as both values. Both are NaN for a fixed
        window and for frames without a usable pixel.
    """
    if isinstance(window, FixedWindow):
        return math.nan, math.nan
    if isinstance(window, PercentileWindow):
        return percentile_limits(resized, window)
    step = grid_step(resized.shape)
    pixels = resized[::step, ::step]
    foreground = pixels[(pixels >= window.low) & (pixels <= window.high)]
    if foreground.size < max(1.0, window.minimum_share * pixels.size):
        return math.nan, math.nan
    median = float(np.median(foreground))
    return median, median


class WindowLimits:
    """Limits of the intensity window over time, constant or smoothed."""

    def __init__(self, window: AnyWindow) -> None:
        self._window = window
        self._smooth = LowPass(0 if isinstance(window, FixedWindow) else window.time_constant_ms)

    def reset(self) -> None:
        """Forget the past (start, gap, size change)."""
        self._smooth.reset()

    def of(self, resized: Image, stamp_ns: int) -> tuple[float, float]:
        """Return the limits (low, high) for a resized frame captured at ``stamp_ns``."""
        if isinstance(self._window, FixedWindow):
            return self._window.low, self._window.high
        return self.smooth(own_limits(resized, self._window), stamp_ns)

    def smooth(self, limits: tuple[float, float], stamp_ns: int) -> tuple[float, float]:
        """Low-pass the limits of one frame; NaN keeps the previous limits."""
        window = self._window
        assert not isinstance(window, FixedWindow)
        low, high = self._smooth.of(limits, stamp_ns)
        if isinstance(window, RelativeWindow):
            middle = (window.low + window.high) / 2 if math.isnan(low) else low
            return middle - window.span, middle + window.span
        if math.isnan(low):
            return 0.0, window.minimum_span
        return low, max(high, low + window.minimum_span)


def clip_limits(
    own_limits: npt.NDArray[np.float32], stamps_ns: npt.NDArray[np.int64], window: AnyWindow
) -> npt.NDArray[np.float32]:
    """Compute the smoothed limits of every frame of a recorded clip, exactly as in a stream that starts with it.

    Args:
        own_limits: (T, 2) limits of each frame alone, see ``own_limits`` (ignored for a fixed window).
        stamps_ns: (T,) int64.
        window: The intensity window.

    Returns:
        (T, 2) float32.
    """
    if isinstance(window, FixedWindow):
        return np.tile(np.array([window.low, window.high], dtype=np.float32), (len(stamps_ns), 1))
    running = WindowLimits(window)
    pairs = zip(own_limits, stamps_ns, strict=True)
    smoothed = [running.smooth((float(own[0]), float(own[1])), int(stamp)) for own, stamp in pairs]
    return np.array(smoothed, dtype=np.float32)


def windowed(values: npt.NDArray[Any], limits: tuple[float, float], out: Float32 | None = None) -> Float32:
    """Map raw values to float32 in [0, 1].

    Args:
        values: Any shape, uint8 or uint16.
        limits: Raw values that become 0 and 1.
        out: Optional float32 array of the same shape to write to.

    Returns:
        float32 of the same shape.
    """
    low, high = np.float32(limits[0]), np.float32(limits[1])
    result: Float32 = np.subtract(values, low, out=out, dtype=np.float32)
    np.multiply(result, _WHITE / (high - low), out=result)
    return result.clip(_BLACK, _WHITE, result)  # np.clip calls this method but takes twice as long
