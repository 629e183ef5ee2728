"""Read stamped frames from the image topics of MCAP files and rosbag2 recordings, ours and other programs'."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast, get_args

from kd_edge.artifact import Band
from kd_edge.crop import LEAST_FOCAL, MOST_FOCAL
from kd_edge.errors import ConfigError, DataError, KdEdgeError, did_you_mean, printable, reason
from kd_edge.runtime.messages import (
    COMPRESSED_IMAGE,
    IMAGE,
    CompressedRosImage,
    McapReader,
    Message,
    SqliteReader,
    Topic,
    open_messages,
    read_image,
)
from kd_edge.runtime.ros.images import compressed_picture, picture, to_grey
from kd_edge.types import Cause, Image, Reason

ENDINGS = (".mcap", ".db3")
OWN_KEY, FORMAT = "kd_edge", "1"
"""Metadata key of a topic that ``Recorder`` wrote; its value is the recording format."""
FOCAL_KEY = "focal"
"""Metadata key of such a topic: the camera's focal length as a share of the frame's width, if known."""
NAME_CHARACTERS = 1024
SHOWN_CHARACTERS = 500
END_KEY, HASH_KEY = "kd_edge/end", "labels_sha256/"
"""Metadata record written at the end of a recording, and the prefix (before the camera's name) of its label hashes."""
_PACKED = tuple(f"{ending}.zstd" for ending in ENDINGS)


class Recorded(NamedTuple):
    """A frame of a recording.

    Attributes:
        image: As ``Frame.image``.
        stamp_ns: Capture time by the recording's clock.
        frame_id: The camera's frame number, if recorded.
        truth: The action really performed, if recorded.
        cut: What happened between this frame and the one before, if recorded.
    """

    image: Image
    stamp_ns: int
    frame_id: int | None = None
    truth: str | None = None
    cut: Cause | None = None


def is_bag(path: Path) -> bool:
    """Whether a path is a ``.mcap`` or ``.db3`` file or a rosbag2 folder of them, compressed or not."""
    if path.is_dir():
        return any(file.name.lower().endswith((*ENDINGS, *_PACKED)) for file in path.iterdir())
    return path.suffix.lower() in ENDINGS


class Bag:
    """One image topic of a recording; iterate once.

    Args:
        path: A ``.mcap`` or ``.db3`` file, or a folder of them.
        topic: Image topic; None selects the only one.
        grey: Convert colour to grey.

    Attributes:
        topic: The selected topic.
        camera: Name of the camera that ``Recorder`` recorded; None for another program's recording.
        band: Spectral band, if recorded.
        focal: Focal length of the camera as a share of the frame's width, if recorded.
        labels_hash: Hash of the labels predicted during recording; empty if not recorded.

    Raises:
        DataError: There is no image topic, or the file cannot be read.
        ConfigError: The chosen topic is missing, or none was chosen and there are several.
    """

    def __init__(self, path: Path, topic: str | None, grey: bool) -> None:
        self._path, self._grey = path, grey
        self._files = _files(path)
        self.topic = _chosen(path, self._topics(), topic)
        is_own = OWN_KEY in self.topic.metadata
        if is_own and self.topic.metadata[OWN_KEY] != FORMAT:
            raise DataError(
                f"{path} was recorded in format {printable(self.topic.metadata[OWN_KEY]):.20}",
                f"format {FORMAT}, which this release knows",
                "the kd-edge that recorded it",
            )
        self.camera = self.topic.metadata.get("camera", "")[:NAME_CHARACTERS] if is_own else None
        band = self.topic.metadata.get("band")
        self.band = cast("Band", band) if is_own and band in get_args(Band) else None
        self.focal = _focal(self.topic.metadata.get(FOCAL_KEY, "")) if is_own else None
        self.labels_hash = self._recorded_hash() if is_own else ""
        self._info_topic = f"{self.topic.name.removesuffix('image')}frame" if is_own else None

    def _recorded_hash(self) -> str:
        with _opened(self._files[-1]) as reader:
            ends = reader.metadata().get(END_KEY, {}) if isinstance(reader, McapReader) else {}
        digest = ends.get(f"{HASH_KEY}{self.camera}", "")
        return digest if re.fullmatch("[0-9a-f]{64}", digest) else ""

    def __iter__(self) -> Iterator[Recorded]:
        """Iterate over the frames, reading lazily.

        Raises:
            DataError: The file is damaged at this point, or truncated.
        """
        wanted = {self.topic.name, self._info_topic or self.topic.name}
        for file in self._files:
            with _opened(file) as reader:
                info: Message | None = None
                messages = reader.messages(wanted)
                while (message := self._next(messages, file)) is not None:
                    if message.topic.name == self._info_topic:
                        info = message
                    elif message.topic.name == self.topic.name:
                        yield self._frame(message, info, file)
                        info = None

    def _next(self, messages: Iterator[Message], file: Path) -> Message | None:
        try:
            return next(messages, None)
        except KdEdgeError:
            raise
        except Exception as error:  # SQLite and the decoders raise any kind on damaged files
            raise _damaged(file, reason(error)) from error

    def _frame(self, message: Message, info: Message | None, file: Path) -> Recorded:
        try:
            stored = read_image(message)
            image = compressed_picture(stored) if isinstance(stored, CompressedRosImage) else picture(stored)
            image = to_grey(image) if self._grey else image
            if self._info_topic is not None:
                return _own(image, message, info)
            return Recorded(image, stored.stamp_ns or message.log_ns)
        except ValueError as error:
            raise _damaged(file, reason(error)) from error

    def _topics(self) -> list[Topic]:
        """The topics of all files; of several with one name, the first."""
        found: dict[str, Topic] = {}
        for file in self._files:
            with _opened(file) as reader:
                try:
                    topics = reader.topics()
                except KdEdgeError:
                    raise
                except Exception as error:
                    raise _damaged(file, reason(error)) from error
            found = {topic.name: topic for topic in topics} | found
        return list(found.values())


def _files(path: Path) -> list[Path]:
    """The files of a recording in order; rosbag2 numbers them."""
    if not path.is_dir():
        return [path]
    files = [file for file in path.iterdir() if file.suffix.lower() in ENDINGS and not file.name.startswith("._")]
    if packed := next((file for file in path.iterdir() if file.name.lower().endswith(_PACKED)), None):
        raise DataError(
            f"{packed} is compressed as a whole file", "files that allow random access", f"zstd -d {packed.name}"
        )
    return sorted(files, key=lambda file: (len(file.name), file.name))  # bag_10 follows bag_9


def _opened(file: Path) -> McapReader | SqliteReader:
    try:
        return open_messages(file)
    except KdEdgeError:
        raise
    except OSError as error:
        raise _damaged(file, error.strerror or reason(error)) from error
    except (ValueError, sqlite3.Error) as error:
        raise _damaged(file, reason(error)) from error


def _chosen(path: Path, topics: Sequence[Topic], wanted: str | None) -> Topic:
    """The topic to replay."""
    images = [topic for topic in topics if topic.type in (IMAGE, COMPRESSED_IMAGE) and topic.encoding == "cdr"]
    names = [topic.name for topic in images]
    shown = f"{printable(', '.join(names)):.{SHOWN_CHARACTERS}}"
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(
                f"topic {wanted} is not in {path}{did_you_mean(wanted, names)}",
                f"one of {shown}" if names else "an image topic",
                "correct topic",
            )
        return images[names.index(wanted)]
    if not images:
        others = printable(", ".join(f"{topic.name} ({topic.type})" for topic in topics)) or "nothing"
        raise DataError(
            f"{path} has no image topic, but {others:.{SHOWN_CHARACTERS}}",
            f"a topic of {IMAGE} or {COMPRESSED_IMAGE}",
            "record the camera's image topic",
        )
    if len(images) > 1:
        raise ConfigError(
            f"{path} has {len(images)} image topics: {shown}",
            "one of them",
            f"replay:{path}?topic={printable(names[0])}",
        )
    return images[0]


def _own(image: Image, message: Message, info: Message | None) -> Recorded:
    """A frame that ``Recorder`` wrote; its log time is the capture time, to the nanosecond."""
    if info is None or info.log_ns != message.log_ns:
        raise ValueError("a frame has lost its recorded metadata")
    raw = json.loads(info.data)
    try:
        frame_id, truth, cut = raw["frame_id"], raw["truth"], raw["cut"]
        if not isinstance(frame_id, int) or not isinstance(truth, str | None):
            raise TypeError(f"frame_id {frame_id!r:.40}, truth {truth!r:.40}")
        cause = None if cut is None else Cause(Reason(cut["reason"]), str(cut["detail"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"the recorded metadata of a frame is damaged ({reason(error)})") from error
    return Recorded(image, message.log_ns, frame_id, truth, cause)


def _focal(text: str) -> float | None:
    """Parse a recorded focal length; None if missing or implausible."""
    try:
        focal = float(text)
    except ValueError:
        return None
    return focal if LEAST_FOCAL < focal <= MOST_FOCAL else None


def _damaged(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} cannot be replayed: {printable(found).rstrip('.')}",
        "a complete .mcap or rosbag2 recording",
        "everything before the fault is replayed; record the rest again",
    )
