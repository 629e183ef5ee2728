"""Settings of a folder of recordings in ``dataset.toml``. Every key is optional."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kd_edge import recipes
from kd_edge.crop import LEAST_FOCAL, MOST_FOCAL
from kd_edge.data.dataset import ImageFormat
from kd_edge.errors import did_you_mean
from kd_edge.reading import is_file

FILE = "dataset.toml"
DEFAULT_FPS = 30.0

Band = Literal["nir", "lwir", "depth", "rgb"]
MODALITY = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
Joint = Annotated[int, Field(ge=0, lt=1000)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]
Value = Annotated[float, Field(ge=-1e12, le=1e12)]

_BANDS: dict[Band, tuple[str, ...]] = {
    "rgb": ("rgb", "color", "colour", "video", "webcam"),
    "nir": ("ir", "nir", "infrared", "infra", "grey", "gray"),
    "lwir": ("lwir", "fir", "thermal", "heat"),
    "depth": ("depth", "distance"),
}
"""Band of a modality by its name, ignoring a trailing number (``ir0``)."""
_SENSORS = ("skeleton", "pose", "acc", "accel", "gyro", "mag", "imu", "inertial", "orientation")


class Modality(BaseModel):
    """Format of one modality's files.

    Attributes:
        band: Spectral band of the camera; None takes it from the modality's name (``ir``, ``thermal``, ``depth``),
            otherwise ``rgb``.
        dtype: Type of a pixel; None for that of the first file.
        unit: Unit of a value; None for ``intensity``, or ``mm`` for depth.
        range: Lowest and highest value; None for the range of the pixel type, or 0 to 4000 for depth.
        fps: Frame rate of files without stamps, 1/s; None for 30.
        rate_hz: Nominal rate of a sensor's signal, 1/s.
        columns: Names of a signal's three axes in the header of its files; None for the only three besides the time.
        rotation: Clockwise rotation of pictures, in degrees.
        limbs: Pairs of joint indices of a skeleton, 0-based; None for the usual layout of that number of joints.
        joint: Numbers stored per joint: its position in two or three axes and, as ``c``, a confidence, where 0 or less
            means not seen. None decides by the number of values: xy, xyz, xyzc.
        up: Axis of a skeleton that points upwards; ``-y`` if y counts rows of a picture.
        offset_s: Offset at which the modality's files begin after the others, in seconds; added to a row's own offset.
        focal: Focal length of the camera as a share of the picture width, which must match a recipe whose crop is in
            metres. None: unknown, not checked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    band: Band | None = None
    dtype: Literal["uint8", "uint16"] | None = None
    unit: str | None = Field(None, min_length=1, max_length=50)
    range: tuple[Value, Value] | None = None
    fps: float | None = Field(None, ge=0.01, le=1000)
    rate_hz: float = Field(50.0, ge=0.1, le=100_000)
    columns: tuple[ColumnName, ColumnName, ColumnName] | None = None
    rotation: Literal[0, 90, 180, 270] = 0
    limbs: Annotated[tuple[tuple[Joint, Joint], ...], Field(min_length=1)] | None = None
    joint: Literal["xy", "xyc", "xyz", "xyzc"] | None = None
    up: Literal["y", "-y", "z", "-z"] = "y"
    offset_s: float = Field(0.0, ge=-86_400, le=86_400)
    focal: float | None = Field(None, gt=LEAST_FOCAL, le=MOST_FOCAL)

    @field_validator("range")
    @classmethod
    def _rising(cls, range: tuple[float, float] | None) -> tuple[float, float] | None:
        if range is not None and range[0] >= range[1]:
            raise ValueError(f"{list(range)} is not the lowest and the highest value, in this order")
        return range

    def channels(self, name: str) -> Literal[1, 3]:
        """Number of channels of a modality's pictures."""
        return 3 if self.band_for(name) == "rgb" else 1

    def band_for(self, name: str) -> Band:
        """Band of a modality: the configured one, or the one of its name."""
        return self.band or band_of(name)

    def format(self, name: str, dtype: str, fps: float) -> ImageFormat:
        """Image format of a modality, from the settings and, where unset, its name and pixel type."""
        band = self.band_for(name)
        largest = 255.0 if dtype == "uint8" else 65535.0
        usual = (0.0, 4000.0) if band == "depth" and dtype == "uint16" else (0.0, largest)
        unit = self.unit or ("mm" if band == "depth" else "intensity")
        kind: Literal["uint8", "uint16"] = "uint8" if dtype == "uint8" else "uint16"
        return ImageFormat(band, kind, self.channels(name), unit, self.range or usual, fps, self.focal)


class Settings(BaseModel):
    """Content of ``dataset.toml``.

    Attributes:
        name: Name of the data set in reports and caches; None for the folder's name.
        labels: Class names in order; None for those that occur, sorted.
        background: Class of the gaps between the labelled pieces of a long recording; None ignores the gaps.
        mirror: Pairs of classes that swap when a picture is mirrored; other classes keep their label. An empty list
            means that mirroring changes no class. None: unknown, so nothing is mirrored.
        pattern: Fields of a file name, for example ``subject{subject}_trial{trial}_{modality}``.
        test_subjects: Subjects of the test side; None for the manifest's ``split``, otherwise the last quarter.
        links: Whether symbolic links may lead out of the folder, for example into a shared cache.
        modality: Format of each modality's files, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Name | None = None
    labels: tuple[Name, ...] | None = None
    background: Name | None = None
    mirror: tuple[tuple[Name, Name], ...] | None = None
    pattern: str | None = Field(None, min_length=1, max_length=500)
    test_subjects: tuple[Name, ...] | None = None
    links: bool = False
    modality: dict[Annotated[str, Field(pattern=f"^{MODALITY}$")], Modality] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        labels = self.labels
        if labels is not None and len({label.casefold() for label in labels}) < len(labels):
            raise ValueError("labels: two of them are the same")
        mirrored = [name for pair in self.mirror or () for name in pair]
        if len(set(mirrored)) < len(mirrored):
            raise ValueError("mirror: a class is in two pairs")
        return self

    def of(self, modality: str) -> Modality:
        """Settings of a modality, or the defaults."""
        return self.modality.get(modality, Modality())


def band_of(modality: str) -> Band:
    """Return the band of a modality by its name."""
    return next((band for band, names in _BANDS.items() if _stem(modality) in names), "rgb")


def is_modality(name: str) -> bool:
    """Whether a word is a usual name of a modality."""
    return _stem(name) in (*(known for names in _BANDS.values() for known in names), *_SENSORS)


def _stem(modality: str) -> str:
    return modality.lower().rstrip("0123456789_-")


def unused(settings: Settings, modalities: Collection[str], labels: Collection[str]) -> Iterator[str]:
    """Yield a remark on each setting of ``dataset.toml`` without effect.

    Args:
        settings: Content of ``dataset.toml``.
        modalities: Modalities of the recordings.
        labels: Classes of the recordings.
    """
    for name in settings.modality:
        if name not in modalities:
            guess = did_you_mean(name, modalities)
            yield f"[modality.{name}] in dataset.toml matches no recording{guess}: there is {', '.join(modalities)}"
    if settings.background is not None and settings.background not in labels:
        yield (
            f"background = '{settings.background}' in dataset.toml adds no class: it needs gaps between pieces of one "
            "recording (start_s and end_s, at least two rows), and there are none"
        )


def read_settings(root: Path) -> Settings:
    """Read a folder's ``dataset.toml``; defaults if it has none.

    Raises:
        ConfigError: The file cannot be read or is invalid; the error lists all faults.
    """
    file = root / FILE
    return recipes.validate(recipes.read("train", str(file)), Settings, str(file)) if is_file(file) else Settings()
