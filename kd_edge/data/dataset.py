"""Interface of a data set: labelled samples, one lazily decoded clip per modality, and named splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from kd_edge.errors import DataError, did_you_mean
from kd_edge.types import Clip, Image

UNLABELLED = -1
"""Label of an unlabelled sample."""

_FULL_TURN = 360.0  # degree


@dataclass(frozen=True, slots=True)
class Sample:
    """One recorded performance of one action; its modalities are paired by ``id``.

    Attributes:
        id: Unique in the data set, for example ``"a1_s2_t3"``.
        subject: The person who performs the action.
        view: Camera position.
        trial: Repetition by the same subject.
        label: Index of the class in the data set's labels, 0-based.
    """

    id: str
    subject: str
    view: str
    trial: str
    label: int


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """Format of the images of one modality.

    Attributes:
        band: Spectral band of the camera.
        dtype: Data type of a pixel.
        channels: 1, or 3 in R, G, B order.
        value_unit: Unit of a pixel value.
        value_range: Lowest and highest value that occurs.
        fps: Nominal frame rate, 1/s.
        focal: Focal length of the camera as a share of the frame width; None if unknown.
    """

    band: Literal["nir", "lwir", "depth", "rgb"]
    dtype: Literal["uint8", "uint16"]
    channels: Literal[1, 3]
    value_unit: str
    value_range: tuple[float, float]
    fps: float
    focal: float | None = None


@dataclass(frozen=True, slots=True)
class SignalFormat:
    """Format of the signals of one wearable sensor: three axes over time.

    Attributes:
        unit: Unit of a value, for example ``"g"``.
        value_range: Lowest and highest value that the sensor can measure.
        rate_hz: Nominal rate, 1/s.
    """

    unit: str
    value_range: tuple[float, float]
    rate_hz: float

    @property
    def period(self) -> float | None:
        """Period after which values repeat: 360 for angles in degrees; None for values that do not wrap."""
        low, high = self.value_range
        return _FULL_TURN if self.unit == "degree" and high - low >= _FULL_TURN / 2 else None


@dataclass(frozen=True, slots=True)
class Split:
    """Samples of a named protocol.

    Attributes:
        name: Name of the protocol.
        train: Samples to train on.
        test: Samples used only once, at the end.
        validation: Samples for model selection, if the protocol defines some; a recipe may hold out others instead.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    validation: tuple[Sample, ...] = ()


class Dataset(Protocol):
    """A data set of paired modalities."""

    @property
    def name(self) -> str:
        """Short name, used in cache folders and reports."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; a sample's label is an index into them."""
        ...

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Every sample, in a fixed order."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names accepted by ``open``."""
        ...

    @property
    def flip_labels(self) -> tuple[int, ...] | None:
        """Label of each class after mirroring the image; None if mirroring is not allowed."""
        ...

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip.

        Raises:
            DataError: The recording is missing or damaged; the message names the file.
        """
        ...

    def content_key(self, sample: Sample, modality: str) -> str:
        """SHA-256 (hex) of everything that determines the result of ``open``.

        Raises:
            DataError: The recording is missing.
        """
        ...

    def image_format(self, modality: str) -> ImageFormat:
        """Return the format of a modality's images.

        Raises:
            DataError: The modality is unknown, or does not consist of images.
        """
        ...

    def gaps(self) -> dict[str, str]:
        """Sample id -> remark, for samples of the complete data set that are entirely missing from this copy."""
        ...

    def remarks(self) -> tuple[str, ...]:
        """Remarks on this copy to read before training: counts against the official ones, repaired labels."""
        ...

    def splits(self) -> tuple[str, ...]:
        """Names accepted by ``split``."""
        ...

    def split(self, name: str) -> Split:
        """Return the samples of a named protocol.

        Raises:
            DataError: The name is unknown, or a class has no training sample.
        """
        ...


class Probe(NamedTuple):
    """Length of a recording, read from its file's header.

    Attributes:
        frames: Number of frames; 0 if the header lacks it.
        seconds: Time from the first to the last frame.
    """

    frames: int
    seconds: float


@runtime_checkable
class Probed(Protocol):
    """A data set that reads the length of recordings without decoding them."""

    def probe(self, sample: Sample, modality: str) -> Probe:
        """Read the header of one recording.

        Raises:
            DataError: The file is missing, truncated or not a recording; the message names it.
        """
        ...


@runtime_checkable
class Wearables(Protocol):
    """A data set with signals of wearable sensors in addition to images.

    ``open`` returns them as (T, 3) float32 with the sensor's own rate and length; their stamps are on the clock of the
    clip's images.
    """

    @property
    def sensors(self) -> tuple[str, ...]:
        """Those of ``modalities`` that are three-axis signals."""
        ...

    def signal_format(self, sensor: str) -> SignalFormat:
        """Return the format of a sensor's signals.

        Raises:
            DataError: The sensor is unknown.
        """
        ...


@runtime_checkable
class PartlyLabelled(Protocol):
    """A data set with unlabelled recordings, used for training by stages that need no label.

    They are not in ``Dataset.samples`` and on no side of a split.
    """

    @property
    def unlabelled(self) -> tuple[Sample, ...]:
        """Every sample without a label, in a fixed order; its label is ``UNLABELLED``."""
        ...

    def unlabelled_apart_from(self, held_out: Sequence[Sample]) -> tuple[Sample, ...]:
        """Those of ``unlabelled`` that share neither a subject nor a file with the validation and test samples."""
        ...


def unlabelled_of(dataset: Dataset) -> tuple[Sample, ...]:
    """Every sample of a data set without a label."""
    return dataset.unlabelled if isinstance(dataset, PartlyLabelled) else ()


@dataclass(frozen=True, slots=True)
class ActionInterval:
    """One labelled action in a long video.

    Attributes:
        label: Index of the class in the data set's labels, 0-based.
        start: First frame of the action, 0-based.
        end: Last frame of the action (inclusive), >= start.
    """

    label: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LongVideo:
    """An untrimmed recording with several actions.

    Attributes:
        id: Unique in the data set, for example ``"0002-L"``.
        view: Camera position.
        actions: Intervals of its actions, in the order of the labels file.
    """

    id: str
    view: str
    actions: tuple[ActionInterval, ...]


@runtime_checkable
class LongVideos(Protocol):
    """A data set whose samples are cut from long videos, so that actions can be detected as well as classified."""

    def long_videos(self, split: str) -> tuple[LongVideo, ...]:
        """Long videos of the test side of a split, in a fixed order.

        Raises:
            DataError: The split is unknown, or this copy lacks files for it.
        """
        ...

    def frames(self, video: LongVideo, modality: str) -> Iterator[tuple[Image, int]]:
        """Decode a long video from its start, one frame at a time.

        Actions count frames as recorded: the number of a frame is its stamp times the frame rate, rounded. That equals
        its index in the sequence unless the recording dropped frames before it.

        Yields:
            ((H, W) or (H, W, 3) uint8 as in ``Dataset.image_format``, stamp in ns from the first frame).

        Raises:
            DataError: The modality is unknown, or the file is missing or damaged; the message names it.
        """
        ...


@runtime_checkable
class Sequences(Protocol):
    """A data set whose samples are cut from recordings of several actions, which can be replayed as a whole."""

    def sequences(self, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], ...]:
        """Group samples by recording, in temporal order."""
        ...

    def sequence(self, samples: Sequence[Sample], modality: str) -> tuple[Clip, tuple[ActionInterval, ...]]:
        """Return the whole recording of some samples, once the sensor has settled, and the interval of each sample.

        Raises:
            DataError: The recording is missing or damaged; the message names the file.
        """
        ...


def require_modality(
    modality: str, modalities: Sequence[str], dataset: str, *, fix: str = "correct the recipe's modality"
) -> None:
    """Raise a DataError unless the data set has the modality; ``fix`` names the setting to correct."""
    if modality not in modalities:
        raise DataError(
            f"{dataset} has no modality '{modality}'{did_you_mean(modality, modalities)}",
            f"one of {', '.join(modalities)}",
            fix,
        )


def listed(names: Iterable[str]) -> str:
    """Format the first five names and the number of further ones."""
    shown = list(names)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(f"'{name}'" for name in shown[:5]) + more
