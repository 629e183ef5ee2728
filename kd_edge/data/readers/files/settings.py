"""``dataset.toml``: what files and folders do not say of one's own recordings. Everything in it is optional."""

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
"""What a modality is by its name, numbers behind it aside (``ir0``)."""
_SENSORS = ("skeleton", "pose", "acc", "accel", "gyro", "mag", "imu", "inertial", "orientation")


class Modality(BaseModel):
    """What one modality's files hold.

    Attributes:
        band: What the camera sees; None goes by the modality's name (``ir``, ``thermal``, ``depth``), else ``rgb``.
        dtype: Type of a pixel; None: that of the first file.
        unit: Unit of a value; None is ``intensity``, of depth ``mm``.
        range: Lowest and highest value, which differ; None is that of the pixels' type, of depth 0 to 4000.
        fps: Frame rate of files without stamps, 1/s. None: 30.
        rate_hz: Nominal rate of a sensor's signal, 1/s.
        columns: Names of a signal's three axes in the first line of its files; None: the only three beside the time.
        rotation: Degrees to turn pictures by, clockwise.
        limbs: Pairs of joints of a skeleton, from 0; None goes by their number where it is a usual one.
        joint: What a skeleton holds of a joint: its position in two or three axes and, as ``c``, how sure it is, where
            0 and less is not seen. None goes by how many numbers there are: xy, xyz, xyzc.
        up: Which axis of a skeleton points upwards; ``-y`` where y counts rows of a picture.
        offset_s: How much later than the others the modality's files begin, in seconds; a row's own comes on top.
        focal: Focal length of the camera as a share of its pictures' width; a recipe whose crop is in metres must have
            been made for it. None: not known, not checked.
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
        """Of a picture of the modality of that name."""
        return 3 if self.band_for(name) == "rgb" else 1

    def band_for(self, name: str) -> Band:
        """What the camera of a modality of that name sees."""
        return self.band or band_of(name)

    def format(self, name: str, dtype: str, fps: float) -> ImageFormat:
        """What its pictures are, as far as the settings do not say by name and type."""
        band = self.band_for(name)
        largest = 255.0 if dtype == "uint8" else 65535.0
        usual = (0.0, 4000.0) if band == "depth" and dtype == "uint16" else (0.0, largest)
        unit = self.unit or ("mm" if band == "depth" else "intensity")
        kind: Literal["uint8", "uint16"] = "uint8" if dtype == "uint8" else "uint16"
        return ImageFormat(band, kind, self.channels(name), unit, self.range or usual, fps, self.focal)


class Settings(BaseModel):
    """The whole file.

    Attributes:
        name: Of the data set, in reports and caches. None: the folder's.
        labels: Class names in their order. None: those that occur, sorted.
        background: Class of what lies between the labelled pieces of a long recording; None makes none of it.
        mirror: Pairs of classes that a mirrored picture turns into each other; other classes stay what they are. An
            empty list: mirroring changes no class. None: nobody knows, so nothing is mirrored.
        pattern: What files' names tell: ``subject{subject}_trial{trial}_{modality}``.
        test_subjects: Who is held out for the test side. None: the manifest's ``split``, else the last quarter.
        links: Whether symbolic links may lead out of the folder, as those of shared caches do.
        modality: What each modality's files hold, by its name.
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
        """The settings of a modality, or the usual ones."""
        return self.modality.get(modality, Modality())


def band_of(modality: str) -> Band:
    """What a modality is by its name."""
    return next((band for band, names in _BANDS.items() if _stem(modality) in names), "rgb")


def is_modality(name: str) -> bool:
    """Whether a word is the usual name of a modality."""
    return _stem(name) in (*(known for names in _BANDS.values() for known in names), *_SENSORS)


def _stem(modality: str) -> str:
    return modality.lower().rstrip("0123456789_-")


def unused(settings: Settings, modalities: Collection[str], labels: Collection[str]) -> Iterator[str]:
    """What ``dataset.toml`` says of nothing that is there.

    Args:
        settings: Its content.
        modalities: Those of the recordings.
        labels: Classes that some recording has.
    """
    for name in settings.modality:
        if name not in modalities:
            guess = did_you_mean(name, modalities)
            yield f"[modality.{name}] in dataset.toml is of no recording{guess}: there is {', '.join(modalities)}"
    if settings.background is not None and settings.background not in labels:
        yield (
            f"background = '{settings.background}' in dataset.toml makes no class: it takes what lies between pieces "
            "of one recording (start_s and end_s, at least two rows of it), and there is nothing"
        )


def read_settings(root: Path) -> Settings:
    """The folder's ``dataset.toml``, or nothing but defaults.

    Raises:
        ConfigError: It cannot be read, or has faults; all are told.
    """
    file = root / FILE
    return recipes.validate(recipes.read("train", str(file)), Settings, str(file)) if is_file(file) else Settings()
