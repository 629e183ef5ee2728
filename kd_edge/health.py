"""Check whether there is anything to recognise: pictures against bounds, a window's features against a reference.

Bounds and reference are fitted at export and stored in the manifest. Pictures are measured on some of their rows, a few
times per second, so that the cost does not depend on the frame size.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.packages import import_extra
from kd_edge.types import NO_CAUSE, Cause, Float32, Image, LabelState, Reason

LOOK_NS = 90_000_000
"""Shortest time between two checked pictures: every third one at 30 frames per second."""
STATIC_NS = 1_000_000_000
"""Pictures without any change for this long are static, because noise alone changes some pixels between two checks."""
SAMPLED_VALUES = 4096
"""Approximate upper limit for the values of a picture, in whole rows, that are measured."""
FAR_PX = 4
"""Distance of the pixels that neighbouring pixels are compared with."""
SHARE_LOST = 0.5
"""A picture with a larger share of saturated pixels, or of noise, shows nothing."""
_VOTES = 3
_CHANGE_OF_UNIT_NOISE = 2 / math.sqrt(math.pi)
"""Mean absolute difference of two pictures that differ only by normal noise of unit standard deviation."""


class Picture(NamedTuple):
    """Figures of one picture.

    Attributes:
        mean: Mean of the measured pixels, raw units.
        contrast: Standard deviation of the measured pixels, raw units.
        saturated: Share of pixels at the limit of the sensor or of the intensity window.
        measured: Share of pixels that are measurements; 1 if every value is a measurement.
        grain: Root mean square difference of neighbours divided by that of pixels ``FAR_PX`` apart: 1 for white noise,
            ``1 / FAR_PX`` for a gradient; 0 if nothing differs.
        sharpness: The same ratio for the steepest place of each column: 1 for an edge from one pixel to the next.
        noise: Share of the variance that is noise, estimated from changes where nothing moves; 0 for the first picture.
        change: Mean absolute difference from the previous picture, raw units; infinite for the first one.
    """

    mean: float
    contrast: float
    saturated: float
    measured: float
    grain: float
    sharpness: float
    noise: float
    change: float


class PictureMeter:
    """Measures pictures of one size, in buffers allocated once.

    Args:
        template: A picture (h, w) or (h, w, 3), uint8 or uint16; only its shape and dtype matter.
        saturation: Smallest raw value that counts as saturated.
        ignore_value: Raw value that means "no measurement"; None if every value is a measurement.
    """

    def __init__(self, template: Image, saturation: float, ignore_value: int | None) -> None:
        self._cv2: Any = import_extra("cv2", "cpu")
        self.shape = template.shape
        self._step = max(1, -(-template.size // SAMPLED_VALUES))
        self._saturation, self._ignore = math.ceil(saturation), ignore_value
        channels = 1 if template.ndim == 2 else template.shape[2]
        rows = template[:: self._step]
        self._now, self._before = np.zeros_like(rows), np.zeros_like(rows)
        flat = self._now.reshape(len(rows), -1)
        self._size = flat.size
        self._mask: npt.NDArray[np.bool_] = np.empty(flat.shape, dtype=np.bool_)
        self._changes = _Differences(flat, 0)
        self._near, self._far = _Differences(flat, channels), _Differences(flat, FAR_PX * channels)
        self._has_before = False

    def reset(self) -> None:
        """Forget the previous picture."""
        self._has_before = False

    def measure(self, resized: Image) -> Picture:
        """Measure a picture of the template's shape and dtype."""
        self._now, self._before = self._before, self._now
        np.copyto(self._now, resized[:: self._step])
        now = self._now.reshape(self._mask.shape)  # (rows, columns * channels)
        mean, contrast, measured = self._moments(now)
        np.greater_equal(now, self._saturation, out=self._mask)
        saturated = np.count_nonzero(self._mask) / self._size
        near, steep_near = self._near.within(now)
        far, steep_far = self._far.within(now)
        noise, change = self._noise_and_change(now, contrast) if self._has_before else (0.0, math.inf)
        self._has_before = True
        grain, sharpness = _ratio(near, far), _ratio(steep_near, steep_far)
        return Picture(mean, contrast, saturated, measured, grain, sharpness, noise, change)

    def _moments(self, now: Image) -> tuple[float, float, float]:
        """Mean and standard deviation of the measured pixels, and their share."""
        if self._ignore is None:
            mean, deviation = self._cv2.meanStdDev(now)
            return float(mean[0, 0]), float(deviation[0, 0]), 1.0
        np.not_equal(now, self._ignore, out=self._mask)
        mean, deviation = self._cv2.meanStdDev(now, mask=self._mask.view(np.uint8))
        return float(mean[0, 0]), float(deviation[0, 0]), np.count_nonzero(self._mask) / self._size

    def _noise_and_change(self, now: Image, contrast: float) -> tuple[float, float]:
        """Share of the variance that is noise, and mean absolute change."""
        columns = self._changes.by_column(now, self._before.reshape(now.shape))
        # Noise shows in the columns with the least change, where nothing moves.
        still = np.partition(columns, len(columns) // 4)[len(columns) // 4] / len(now)
        deviation = float(still) / _CHANGE_OF_UNIT_NOISE
        return min(1.0, (deviation / contrast) ** 2) if contrast else 0.0, float(columns.sum()) / now.size


class _Differences:
    """Absolute differences between two (n, w) pictures, or between values of one picture some columns apart."""

    def __init__(self, template: Image, apart: int) -> None:
        self._cv2: Any = import_extra("cv2", "cpu")
        self._apart = apart
        self._all = np.empty_like(template[:, apart:])
        self._sums = np.empty((1, self._all.shape[1]), dtype=np.float32)
        self._maxima = np.empty(self._all.shape[1], dtype=template.dtype)

    def within(self, now: Image) -> tuple[float, float]:
        """Root mean square of all differences, and of the largest difference in each column."""
        cv2 = self._cv2
        cv2.absdiff(now[:, self._apart :], now[:, : -self._apart], dst=self._all)
        np.maximum.reduce(self._all, axis=0, out=self._maxima)
        squares = cv2.norm(self._all, cv2.NORM_L2SQR), cv2.norm(self._maxima, cv2.NORM_L2SQR)
        return math.sqrt(squares[0] / self._all.size), math.sqrt(squares[1] / self._maxima.size)

    def by_column(self, now: Image, other: Image) -> Float32:
        """Sum (w,) of the differences in each column."""
        cv2 = self._cv2
        cv2.absdiff(now, other, dst=self._all)
        cv2.reduce(self._all, 0, cv2.REDUCE_SUM, dst=self._sums, dtype=cv2.CV_32F)
        sums: Float32 = self._sums[0]
        return sums


class PictureBounds(BaseModel):
    """Bounds on the pictures of a healthy camera.

    Attributes:
        mean: Smallest mean, raw units; 0 means no limit.
        contrast: Smallest contrast, raw units.
        saturated: Largest share of saturated pixels.
        measured: Smallest share of measured pixels; 0 means no limit.
        grain: Largest grain.
        sharpness: Smallest sharpness.
        noise: Largest share of noise.
        moves: Whether two pictures ``LOOK_NS`` apart always differ, if only by noise; if this is not known, no picture
            is reported as static.
        saturation: Smallest raw value that counts as saturated.
        ignore_value: Raw value that means "no measurement".
        side: Description of the recordings that the bounds were fitted on.
        clips: Number of these recordings.
        frames: Number of their pictures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    mean: float = Field(ge=0)
    contrast: float = Field(ge=0)
    saturated: float = Field(ge=0, le=1)
    measured: float = Field(ge=0, le=1)
    grain: float = Field(ge=0)
    sharpness: float = Field(ge=0)
    noise: float = Field(ge=0)
    moves: bool
    saturation: float = Field(ge=0, le=65536)
    ignore_value: int | None = Field(None, ge=0, le=65535)
    side: str = Field("", max_length=200)
    clips: int = Field(ge=1)
    frames: int = Field(ge=1)

    def judge(self, picture: Picture) -> Finding:
        """Return the worst finding for one picture; ``PictureHealth`` adds findings that need several pictures."""
        return next(self._empty_findings(picture), None) or next(self._doubtful_findings(picture), FINE)

    def _empty_findings(self, picture: Picture) -> Iterator[Finding]:
        """Reasons why the picture shows nothing."""
        flat, overexposed = picture.contrast < self.contrast, picture.saturated > self.saturated
        if picture.measured < self.measured:
            yield _unknown(Reason.DARK, f"only {picture.measured:.0%} of the pixels are measured")
        if flat and picture.mean < self.mean:
            yield _unknown(Reason.DARK, f"mean {picture.mean:.3g} below {self.mean:.3g}")
        if overexposed and (flat or picture.saturated > SHARE_LOST):
            yield _unknown(Reason.SATURATED, f"{picture.saturated:.0%} of the pixels at the limit")
        if flat:
            yield _unknown(Reason.FLAT, f"contrast {picture.contrast:.2g} below {self.contrast:.2g}")
        if picture.grain > self.grain:
            yield _unknown(Reason.NOISE, f"nothing but grain: {picture.grain:.2f} above {self.grain:.2f}")
        if picture.noise > max(SHARE_LOST, self.noise):
            yield _unknown(Reason.NOISE, f"{picture.noise:.0%} of the variance is noise")

    def _doubtful_findings(self, picture: Picture) -> Iterator[Finding]:
        """Reasons why the picture looks unlike the training pictures."""
        if picture.mean < self.mean:
            yield _degraded(Reason.DARK, f"mean {picture.mean:.3g} below {self.mean:.3g}")
        if picture.saturated > self.saturated:
            yield _degraded(Reason.SATURATED, f"{picture.saturated:.0%} of the pixels at the limit")
        if picture.noise > self.noise:
            yield _degraded(Reason.NOISE, f"{picture.noise:.0%} of the variance is noise")
        if picture.sharpness < self.sharpness:
            yield _degraded(Reason.BLURRED, f"sharpness {picture.sharpness:.2f} below {self.sharpness:.2f}")


class Finding(NamedTuple):
    """The result of checking a picture.

    Attributes:
        state: ``ok``; ``degraded`` if the picture looks unlike the training pictures; ``unknown`` if it shows nothing.
        cause: The reason for the state.
    """

    state: LabelState
    cause: Cause


FINE = Finding(LabelState.OK, NO_CAUSE)


def _unknown(reason: Reason, detail: str) -> Finding:
    return Finding(LabelState.UNKNOWN, Cause(reason, detail))


def _degraded(reason: Reason, detail: str) -> Finding:
    return Finding(LabelState.DEGRADED, Cause(reason, detail))


class PictureHealth:
    """Checks the pictures of one source over time.

    A finding takes effect if two of the last three checks had one. It remains in effect for ``hold_ns`` after the last
    picture with such a finding, because that picture's features stay in the window for that long.

    Args:
        bounds: Bounds on the pictures.
        hold_ns: Length of the window.
    """

    def __init__(self, bounds: PictureBounds, hold_ns: int) -> None:
        self._bounds, self._hold_ns = bounds, hold_ns
        self._meter: PictureMeter | None = None
        self.reset()

    @property
    def looked_ns(self) -> int | None:
        """Stamp of the last picture checked."""
        return self._looked_ns

    def reset(self) -> None:
        """Forget all pictures; the next one may have any stamp."""
        self._looked_ns: int | None = None
        self._still_since_ns: int | None = None
        self._noise = 0.0
        self._bad = [False] * _VOTES
        self._looks = 0
        self._unseen = 0  # pictures since the last check
        self._found: dict[LabelState, tuple[int, Finding]] = {}
        self.finding = FINE
        if self._meter is not None:
            self._meter.reset()

    def see(self, resized: Image, stamp_ns: int) -> None:
        """Check a picture and update ``finding``, unless the last check was less than ``LOOK_NS`` ago.

        Args:
            resized: (h, w) or (h, w, 3), as returned by ``resizing.resize``.
            stamp_ns: Time of capture, later than all previous ones.
        """
        self._unseen += 1
        if self._looked_ns is not None and (stamp_ns - self._looked_ns < LOOK_NS or self._unseen % 2 == 0):
            return  # checks lie an odd number of pictures apart, so that a lamp lighting every other one is noticed
        self._unseen = 0
        if self._meter is None or self._meter.shape != resized.shape:
            self._meter = PictureMeter(resized, self._bounds.saturation, self._bounds.ignore_value)
        finding = self._check(self._meter.measure(resized), stamp_ns)
        self._looked_ns = stamp_ns
        self._bad[self._looks % _VOTES] = finding is not FINE
        self._looks += 1
        if finding is not FINE and 2 * sum(self._bad) > _VOTES:
            self._found[finding.state] = stamp_ns, finding
        self.finding = self._in_effect(stamp_ns) if self._found else FINE

    def _check(self, picture: Picture, stamp_ns: int) -> Finding:
        if picture.change != 0:
            self._still_since_ns = None
        elif self._still_since_ns is None:
            self._still_since_ns = self._looked_ns
        noise, self._noise = min(picture.noise, self._noise), picture.noise  # a cut changes everything once
        finding = self._bounds.judge(picture._replace(noise=noise))
        if finding.state is LabelState.UNKNOWN or self._still_since_ns is None or not self._bounds.moves:
            return finding
        still_ns = stamp_ns - self._still_since_ns
        if still_ns < STATIC_NS:
            return finding
        return _unknown(Reason.STATIC, f"not a pixel has changed for {still_ns / 1e9:.1f} s")

    def _in_effect(self, now_ns: int) -> Finding:
        """Return the worst finding that is still in effect."""
        for state in (LabelState.UNKNOWN, LabelState.DEGRADED):
            if state in self._found:
                seen_ns, finding = self._found[state]
                if now_ns - seen_ns <= self._hold_ns:
                    return finding
                del self._found[state]
        return FINE


class FeatureReference(BaseModel):
    """Statistics of the training windows' mean features, by class, for detecting unfamiliar windows.

    A window's distance from a class is the Mahalanobis distance, so that directions in which windows of one class vary
    much count little. The covariance consists of ``directions`` with their ``variances`` and one variance for all
    other directions.

    Attributes:
        classes: Number K of classes with a mean.
        size: Length D of a feature.
        rank: Number R of directions.
        means: (K, D) float16, little endian, base64.
        deviation: (D,) float16, little endian, base64, positive: within-class standard deviation, the unit of the
            following fields.
        directions: (R, D) float16, little endian, base64: unit vectors along which windows of a class vary most.
        variances: (R,) variances along these directions.
        rest: Variance along any other direction.
        threshold: Upper limit for the distance of a familiar window, a root mean square over the D dimensions.
        fitted_on: Description of the windows that the threshold was fitted on.
        clips: Number of recordings that the means were computed from.
        windows: Number of windows that the threshold was fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    classes: int = Field(ge=1, le=10_000)
    size: int = Field(ge=1, le=1 << 20)
    rank: int = Field(ge=0, le=1024)
    means: str
    deviation: str
    directions: str
    variances: tuple[Annotated[float, Field(gt=0)], ...] = Field(max_length=1024)
    rest: float = Field(gt=0)
    threshold: float = Field(1.0, ge=1e-6)
    fitted_on: str = Field("", max_length=200)
    clips: int = Field(1, ge=1)
    windows: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _decodable(self) -> FeatureReference:
        if not (self.arrays()[1] > 0).all():
            raise ValueError("a deviation is not positive")
        if len(self.variances) != self.rank:
            raise ValueError(f"{len(self.variances)} variances for {self.rank} directions")
        return self

    @classmethod
    def of(
        cls, means: Float32, deviation: Float32, directions: Float32, variances: Float32, rest: float
    ) -> FeatureReference:
        """Create a reference from arrays of shapes (K, D), (D,), (R, D) and (R,)."""
        return cls(
            classes=len(means),
            size=len(deviation),
            rank=len(directions),
            means=_packed(means),
            deviation=_packed(deviation),
            directions=_packed(directions),
            variances=tuple(float(f"{v:.4g}") for v in variances),
            rest=float(f"{rest:.4g}"),
        )

    def arrays(self) -> tuple[Float32, Float32, Float32]:
        """Return means (K, D), deviation (D,) and directions (R, D) as float32."""
        return (
            _unpacked(self.means, (self.classes, self.size)),
            _unpacked(self.deviation, (self.size,)),
            _unpacked(self.directions, (self.rank, self.size)),
        )


class Familiarity:
    """Scores windows against a reference, in buffers allocated once."""

    def __init__(self, reference: FeatureReference) -> None:
        means, deviation, directions = reference.arrays()
        centre = means.mean(axis=0)
        classes = (means - centre) / deviation
        excess = 1 / reference.rest - 1 / np.maximum(np.asarray(reference.variances, np.float32), reference.rest)
        directions = directions * np.sqrt(excess)[:, None]
        # |x - m|^2 / rest - |directions (x - m)|^2, expanded: terms that depend on the class alone are precomputed
        seen = classes @ directions.T
        self._own = (classes**2).sum(axis=1) / reference.rest - (seen**2).sum(axis=1)
        self._twice = np.ascontiguousarray(2 * (seen @ directions - classes / reference.rest))
        self._directions = np.ascontiguousarray(directions)
        self._inverse, self._centre = 1 / deviation, centre / deviation
        self._rest = 1 / reference.rest
        self._unit = 1 / (reference.size * reference.threshold**2)
        self._mean = np.empty(reference.size, dtype=np.float32)

    def score(self, past: Float32, feature: Float32) -> float:
        """Return the distance of a window's mean feature from the nearest class, divided by the threshold.

        Args:
            past: (T-1, D) float32, features of the older segments.
            feature: (D,) float32, feature of the newest segment.

        Returns:
            The relative distance; above 1 the window is unfamiliar.
        """
        x = np.add.reduce(past, axis=0, out=self._mean)
        x += feature
        x *= np.float32(1 / (len(past) + 1))
        x *= self._inverse
        x -= self._centre
        seen = self._directions @ x
        nearest = float((self._own + self._twice @ x).min())
        squared = nearest + float(x @ x) * self._rest - float(seen @ seen)
        return math.sqrt(max(0.0, squared) * self._unit)


def _ratio(near: float, far: float) -> float:
    return near / far if far else math.inf if near else 0.0


def _packed(values: npt.NDArray[np.floating[Any]]) -> str:
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


def _unpacked(text: str, shape: Sequence[int]) -> Float32:
    count = math.prod(shape)
    if len(text) != 4 * -(-2 * count // 3):  # base64 encodes three bytes as four characters
        raise ValueError(f"{len(text)} characters for {'x'.join(map(str, shape))} half-precision numbers")
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError("a number is missing or not finite")
    return values.reshape(tuple(shape))
