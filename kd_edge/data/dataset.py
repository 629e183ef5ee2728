"""What a data set is: samples with a label each, one lazily decoded clip per modality, and named splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from kd_edge.errors import DataError, did_you_mean
from kd_edge.types import Clip, Image

UNLABELLED = -1
"""Label of a sample that nobody has labelled."""

_FULL_TURN = 360.0  # degree


@dataclass(frozen=True, slots=True)
class Sample:
    """One recorded performance of one action; its modalities are paired by ``id``.

    Attributes:
        id: Unique in the data set, for example ``"a1_s2_t3"``.
        subject: Who performs.
        view: Where the camera stands.
        trial: Repetition by the same subject.
        label: Position of the class in the data set's labels, 0-based.
    """

    id: str
    subject: str
    view: str
    trial: str
    label: int


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """What the images of one modality are.

    Attributes:
        band: What the camera sees.
        dtype: Data type of a pixel.
        channels: 1, or 3 in R, G, B order.
        value_unit: Unit of a pixel value.
        value_range: Lowest and highest value that occurs.
        fps: Nominal frame rate, 1/s.
        focal: Focal length of the camera as a share of the frame's width; None where not known.
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
    """What the signals of one wearable sensor are: three axes over time.

    Attributes:
        unit: Unit of a value, for example ``"g"``.
        value_range: Lowest and highest value that the sensor can tell.
        rate_hz: Nominal rate, 1/s.
    """

    unit: str
    value_range: tuple[float, float]
    rate_hz: float

    @property
    def period(self) -> float | None:
        """Values so far apart are the same: angles in degree come round after 360; None where values never do."""
        low, high = self.value_range
        return _FULL_TURN if self.unit == "degree" and high - low >= _FULL_TURN / 2 else None


@dataclass(frozen=True, slots=True)
class Split:
    """Samples of a named protocol.

    Attributes:
        name: Of the protocol.
        train: Samples to train on.
        test: Samples touched once, at the end.
        validation: Samples to choose by, where the protocol names some; a recipe may hold out others instead.
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
        """Class names; a sample's label is a position in them."""
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
        """Label of each class after mirroring the image; None when mirroring is not allowed."""
        ...

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip now.

        Raises:
            DataError: Absent or damaged; the file is named.
        """
        ...

    def content_key(self, sample: Sample, modality: str) -> str:
        """SHA-256 (hex) of everything that decides what ``open`` returns.

        Raises:
            DataError: The recording is absent.
        """
        ...

    def image_format(self, modality: str) -> ImageFormat:
        """What the images of a modality are.

        Raises:
            DataError: Unknown modality, or one that is not made of images.
        """
        ...

    def gaps(self) -> dict[str, str]:
        """Sample id -> remark, for samples that the complete data set has and this copy lacks altogether."""
        ...

    def remarks(self) -> tuple[str, ...]:
        """What a user should know of this copy before training: counts against the official ones, repaired labels."""
        ...

    def splits(self) -> tuple[str, ...]:
        """Names accepted by ``split``."""
        ...

    def split(self, name: str) -> Split:
        """Samples of a named protocol.

        Raises:
            DataError: Unknown name, or a class without a training sample.
        """
        ...


class Probe(NamedTuple):
    """Length of a recording by its file's header.

    Attributes:
        frames: Number of frames; 0 when the header does not tell.
        seconds: Time from the first to the last frame.
    """

    frames: int
    seconds: float


@runtime_checkable
class Probed(Protocol):
    """A data set whose recordings tell their length without being decoded."""

    def probe(self, sample: Sample, modality: str) -> Probe:
        """Read the header of one recording.

        Raises:
            DataError: Absent, cut off or not a recording; the file is named.
        """
        ...


@runtime_checkable
class Wearables(Protocol):
    """A data set with signals of wearable sensors beside its images.

    ``open`` returns them as (T, 3) float32 with the sensor's own rate and length, their stamps on the time of the
    clip's images.
    """

    @property
    def sensors(self) -> tuple[str, ...]:
        """Those of ``modalities`` that are signals of three axes."""
        ...

    def signal_format(self, sensor: str) -> SignalFormat:
        """What a sensor's signals are.

        Raises:
            DataError: No such sensor.
        """
        ...


@runtime_checkable
class PartlyLabelled(Protocol):
    """A data set with recordings that nobody has labelled: for stages that see no label, on the training side alone.

    They are none of ``Dataset.samples`` and on no side of a split.
    """

    @property
    def unlabelled(self) -> tuple[Sample, ...]:
        """Every sample without a label, in a fixed order; its label is ``UNLABELLED``."""
        ...

    def unlabelled_apart_from(self, held_out: Sequence[Sample]) -> tuple[Sample, ...]:
        """Those of ``unlabelled`` that share neither a subject nor a file with samples for validation and test."""
        ...


def unlabelled_of(dataset: Dataset) -> tuple[Sample, ...]:
    """Every sample of a data set without a label."""
    return dataset.unlabelled if isinstance(dataset, PartlyLabelled) else ()


@dataclass(frozen=True, slots=True)
class ActionInterval:
    """One labelled action in a long video.

    Attributes:
        label: Position of the class in the data set's labels, 0-based.
        start: First frame of the action, 0-based.
        end: Last frame of the action (inclusive), >= start.
    """

    label: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LongVideo:
    """An untrimmed recording with several actions in it.

    Attributes:
        id: Unique in the data set, for example ``"0002-L"``.
        view: Where the camera stands.
        actions: Intervals of its actions, in the order of the labels file.
    """

    id: str
    view: str
    actions: tuple[ActionInterval, ...]


@runtime_checkable
class LongVideos(Protocol):
    """A data set whose samples are cut from long videos, for finding actions instead of only naming them."""

    def long_videos(self, split: str) -> tuple[LongVideo, ...]:
        """Long videos of the test side of a split, in a fixed order.

        Raises:
            DataError: Unknown split, or one that this copy cannot make.
        """
        ...

    def frames(self, video: LongVideo, modality: str) -> Iterator[tuple[Image, int]]:
        """Decode a long video from its start, one frame at a time.

        Actions count frames as recorded: the number of a frame is its stamp times the frame rate, rounded. That is its
        place in the sequence too, unless the recording dropped frames before it.

        Yields:
            ((H, W) or (H, W, 3) uint8 as ``Dataset.image_format`` says, stamp in ns from the first frame).

        Raises:
            DataError: Unknown modality; absent or damaged, the file is named.
        """
        ...


@runtime_checkable
class Sequences(Protocol):
    """A data set whose samples are cut from recordings of several actions, to be watched as a camera saw them."""

    def sequences(self, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], ...]:
        """Samples of each recording, in the order of time."""
        ...

    def sequence(self, samples: Sequence[Sample], modality: str) -> tuple[Clip, tuple[ActionInterval, ...]]:
        """The whole recording of some samples, from when the sensor has settled, and where in it each of them is.

        Raises:
            DataError: Absent or damaged; the file is named.
        """
        ...


def require_modality(
    modality: str, modalities: Sequence[str], dataset: str, *, fix: str = "correct the recipe's modality"
) -> None:
    """Raise a DataError unless the data set has the modality; ``fix`` says where it was named."""
    if modality not in modalities:
        raise DataError(
            f"{dataset} has no modality '{modality}'{did_you_mean(modality, modalities)}",
            f"one of {', '.join(modalities)}",
            fix,
        )


def listed(names: Iterable[str]) -> str:
    """The first five names, and how many more."""
    shown = list(names)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(f"'{name}'" for name in shown[:5]) + more
