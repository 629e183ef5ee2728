"""Messages in files: MCAP, rosbag2's SQLite and ROS 2 images. The only module that uses ``mcap`` and ``rosbags``."""

from __future__ import annotations

import functools
import os
import sqlite3
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from kd_edge.packages import import_extra
from kd_edge.reading import open_regular

EXTRA = "mcap"
RECORD_BYTES = 128_000_000
"""Largest record, and largest uncompressed chunk: room for two of the largest frames."""
LOOK_BYTES = 256_000_000
"""How much of a file without a summary is searched for topics."""
IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_TABLES = ("messages", "topics")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a file.

    Attributes:
        name: Name of the topic.
        type: Message type, such as ``sensor_msgs/msg/Image``.
        encoding: Message encoding: ``cdr`` or ``json``.
        metadata: Further key-value pairs stored with the topic.
    """

    name: str
    type: str
    encoding: str = "cdr"
    metadata: Mapping[str, str] = field(default_factory=dict)


class Message(NamedTuple):
    """One message of a file.

    Attributes:
        topic: Its topic.
        log_ns: When it was written, by the file's own clock.
        data: Its bytes.
    """

    topic: Topic
    log_ns: int
    data: bytes


class RosImage(NamedTuple):
    """A ``sensor_msgs/msg/Image`` as stored, unchecked.

    Attributes:
        stamp_ns: Stamp of its header; 0 if unset.
        width: Pixels per row.
        height: Number of rows.
        encoding: ``mono8``, ``16UC1``, ...
        is_bigendian: Whether the high byte of a sample comes first.
        step: Bytes from one row to the next.
        data: All bytes of the pixels.
    """

    stamp_ns: int
    width: int
    height: int
    encoding: str
    is_bigendian: bool
    step: int
    data: npt.NDArray[np.uint8]


class CompressedRosImage(NamedTuple):
    """A ``sensor_msgs/msg/CompressedImage``.

    Attributes:
        stamp_ns: Stamp of its header; 0 if unset.
        format: Format as declared by its writer.
        data: Bytes of an image file.
    """

    stamp_ns: int
    format: str
    data: bytes


def read_image(message: Message) -> RosImage | CompressedRosImage:
    """Decode an image message without copying its pixels.

    Raises:
        ValueError: The message is damaged or not an image.
    """
    try:
        data = message.data
        if data.startswith(_ZSTD_MAGIC):  # rosbag2 can compress each message alone
            data = _unzstd(data, RECORD_BYTES)
        image = _types().deserialize_cdr(data, message.topic.type)
    except Exception as error:  # the decoder raises any exception on damaged bytes
        raise ValueError(f"a message of {message.topic.name} is damaged ({error})") from error
    stamp_ns = image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec
    if message.topic.type == COMPRESSED_IMAGE:
        return CompressedRosImage(stamp_ns, image.format, image.data.tobytes())
    return RosImage(
        stamp_ns, image.width, image.height, image.encoding, bool(image.is_bigendian), image.step, image.data
    )


def image_message(pixels: npt.NDArray[Any], encoding: str, stamp_ns: int, source: str) -> memoryview:
    """Encode an image as a ``sensor_msgs/msg/Image``.

    Args:
        pixels: (H, W) or (H, W, 3), uint8 or uint16.
        encoding: ``mono8``, ``mono16`` or ``rgb8``.
        stamp_ns: When it was captured; clipped to the 31 bits that ROS has for seconds.
        source: Value of ``header.frame_id``.
    """
    types = _types().types
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = types["builtin_interfaces/msg/Time"](sec=max(0, min(seconds, (1 << 31) - 1)), nanosec=nanoseconds)
    image = types[IMAGE](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=source),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=little.nbytes // pixels.shape[0],
        data=little.reshape(-1).view(np.uint8),
    )
    message: memoryview = _types().serialize_cdr(image, IMAGE)
    return message


def check_packages() -> None:
    """Check that recordings can be written.

    Raises:
        MissingExtraError: ``mcap`` or ``rosbags`` is not installed.
    """
    import_extra("mcap.writer", EXTRA)
    _types()


@functools.cache
def _types() -> Any:
    """ROS 2's message types; images are the same in every release."""
    typesys = import_extra("rosbags.typesys", EXTRA)
    return typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)


class McapWriter:
    """Writes an MCAP file; every chunk can be read without those that follow.

    Args:
        file: Open for writing; the caller closes it.
        library: Name of the writing library, stored in the header.
        chunk_bytes: Approximate size of a chunk.
    """

    def __init__(self, file: IO[bytes], library: str, chunk_bytes: int) -> None:
        writer = import_extra("mcap.writer", EXTRA)
        self._file = file
        self._writer = writer.Writer(file, chunk_size=chunk_bytes, compression=writer.CompressionType.NONE)
        self._writer.start(profile="", library=library)
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write metadata of the whole file and flush."""
        self._writer.add_metadata(name, dict(values))
        self._file.flush()

    def add_images(self, topic: str, metadata: Mapping[str, str]) -> None:
        """Add a topic of ``sensor_msgs/msg/Image``."""
        if IMAGE not in self._schemas:
            text, _ = _types().generate_msgdef(IMAGE, ros_version=2)
            self._schemas[IMAGE] = self._writer.register_schema(IMAGE, "ros2msg", text.encode())
        self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[IMAGE], dict(metadata))

    def add_json(self, topic: str, type_: str, schema: str, metadata: Mapping[str, str]) -> None:
        """Add a topic of JSON objects with their JSON schema."""
        if type_ not in self._schemas:
            self._schemas[type_] = self._writer.register_schema(type_, "jsonschema", schema.encode())
        self._channels[topic] = self._writer.register_channel(topic, "json", self._schemas[type_], dict(metadata))

    def write(self, topic: str, log_ns: int, data: bytes | memoryview, sequence: int) -> bool:
        """Add a message; ``sequence`` counts those of its topic, modulo 2^32.

        Returns:
            Whether this message and all before it are now in the file, as complete chunks.
        """
        before = self._file.tell()
        self._writer.add_message(self._channels[topic], log_ns, data, log_ns, sequence & 0xFFFFFFFF)
        if self._file.tell() == before:
            return False
        self._file.flush()
        return True

    def finish(self) -> None:
        """Write the last chunk and the summary."""
        self._writer.finish()
        self._file.flush()


class McapReader:
    """Reads the messages of an MCAP file one by one in the order they were written; a context manager.

    A truncated file is read up to where it ends.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)

    def __enter__(self) -> McapReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def topics(self) -> list[Topic]:
        """All topics; for a file without a summary, those in its first ``LOOK_BYTES``."""
        topics = self._summary_topics() or self._search_topics()
        return sorted(topics, key=lambda topic: topic.name)

    def _summary_topics(self) -> list[Topic]:
        reader = import_extra("mcap.reader", EXTRA)
        self._file.seek(0)
        try:
            summary = reader.SeekingReader(self._file, record_size_limit=RECORD_BYTES).get_summary()
        except Exception:  # truncated or damaged there; what precedes it may be intact
            return []
        return [] if summary is None else [_topic(c, summary.schemas) for c in summary.channels.values()]

    def _search_topics(self) -> list[Topic]:
        found: dict[str, Topic] = {}
        try:
            for record in self._records():
                if isinstance(record, Topic):
                    found[record.name] = record
                if self._file.tell() > LOOK_BYTES:
                    break
        except Exception:
            if not found:
                raise
        return list(found.values())

    def metadata(self) -> dict[str, dict[str, str]]:
        """Metadata of the file, by name; empty without a summary."""
        reader = import_extra("mcap.reader", EXTRA)
        self._file.seek(0)
        try:
            seeking = reader.SeekingReader(self._file, record_size_limit=RECORD_BYTES)
            return {record.name: record.metadata for record in seeking.iter_metadata()} if seeking.get_summary() else {}
        except Exception:  # truncated or damaged
            return {}

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """The messages of some topics.

        Raises:
            ValueError: The rest is damaged, or the file is truncated.
        """
        for record in self._records():
            if isinstance(record, Message) and record.topic.name in topics:
                yield record

    def _records(self) -> Iterator[Topic | Message]:
        """Topics, as they are declared, and messages, from the start of the file."""
        exceptions = import_extra("mcap.exceptions", EXTRA)
        self._file.seek(0)
        try:
            yield from self._read()
        except (exceptions.EndOfFile, struct.error) as error:
            at, size = self._file.tell(), self._file.seek(0, os.SEEK_END)
            if at < size:
                raise ValueError(f"it is damaged before byte {at:,}") from error
            raise ValueError(f"it breaks off after {size:,} bytes, before its end was written") from error
        except exceptions.InvalidMagic as error:
            raise ValueError("it does not begin or end as an MCAP file") from error
        except exceptions.RecordLengthLimitExceeded as error:
            raise ValueError(f"a record claims more than {RECORD_BYTES:,} bytes") from error

    def _read(self) -> Iterator[Topic | Message]:
        reader = import_extra("mcap.stream_reader", EXTRA)
        kinds = import_extra("mcap.records", EXTRA)
        schemas: dict[int, Any] = {}
        topics: dict[int, Topic] = {}
        for outer in reader.StreamReader(self._file, emit_chunks=True, record_size_limit=RECORD_BYTES).records:
            inner = reader.breakup_chunk(_unpacked(outer), True) if isinstance(outer, kinds.Chunk) else (outer,)
            for record in inner:
                if isinstance(record, kinds.Schema):
                    schemas[record.id] = record
                elif isinstance(record, kinds.Channel):
                    topics[record.id] = _topic(record, schemas)
                    yield topics[record.id]
                elif isinstance(record, kinds.Message):
                    if record.channel_id not in topics:
                        raise ValueError(f"a message is of channel {record.channel_id}, which it does not name")
                    yield Message(topics[record.channel_id], record.log_time, record.data)


def _topic(channel: Any, schemas: Mapping[int, Any]) -> Topic:
    schema = schemas.get(channel.schema_id)
    return Topic(channel.topic, "" if schema is None else schema.name, channel.message_encoding, channel.metadata)


def _unpacked(chunk: Any) -> Any:
    """A chunk, uncompressed; its size is checked before memory is allocated."""
    if not chunk.compression:
        return chunk
    size = chunk.uncompressed_size
    if size > RECORD_BYTES:
        raise ValueError(f"a chunk claims {size:,} bytes, more than {RECORD_BYTES:,}")
    if chunk.compression == "zstd":
        chunk.data = _unzstd(chunk.data, size)
    elif chunk.compression == "lz4":
        lz4 = import_extra("lz4.frame", EXTRA)
        chunk.data = lz4.LZ4FrameDecompressor().decompress(chunk.data, max_length=size)
    else:
        raise ValueError(f"its chunks are compressed with {chunk.compression!r}, not zstd or lz4")
    chunk.compression = ""
    return chunk


def _unzstd(data: bytes, limit: int) -> bytes:
    """Decompress zstd data, at most ``limit`` bytes."""
    zstandard = import_extra("zstandard", EXTRA)
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        unpacked: bytes = stream.read(limit)
        return unpacked


class SqliteReader:
    """Reads the messages of a rosbag2 ``.db3`` file one by one in time order; a context manager."""

    def __init__(self, path: Path) -> None:
        open_regular(path).close()  # SQLite would wait for a FIFO
        unmerged = path.with_name(f"{path.name}-wal")
        if unmerged.is_file() and unmerged.stat().st_size:
            merge = f"sqlite3 {path.name} 'PRAGMA wal_checkpoint'"
            raise ValueError(f"its newest messages are still in {unmerged.name}; {merge} moves them")
        address = f"file:{quote(os.fsencode(path.absolute()))}?immutable=1"
        self._file = sqlite3.connect(
            address, uri=True, check_same_thread=False
        )  # opened here, read by the capture thread
        self._cursor = self._file.cursor()
        try:
            self._topics = self._read_topics()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> SqliteReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._cursor.close()  # a running query would keep the file open
        self._file.close()

    def _read_topics(self) -> dict[int, Topic]:
        if hasattr(self._file, "setlimit"):  # since Python 3.11
            self._file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, RECORD_BYTES)
        self._cursor.execute("PRAGMA trusted_schema = OFF")
        self._cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not set(_TABLES) <= {name for (name,) in self._cursor}:  # a view could be infinite
            raise ValueError(f"it is not a rosbag2 file: it lacks the tables {' and '.join(_TABLES)}")
        rows = self._cursor.execute("SELECT id, name, type, serialization_format FROM topics")
        return {number: Topic(str(name), str(type_), str(encoding)) for number, name, type_, encoding in rows}

    def topics(self) -> list[Topic]:
        """All topics."""
        return list(self._topics.values())

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """The messages of some topics.

        Raises:
            ValueError: The rest is damaged.
        """
        numbers = [number for number, topic in self._topics.items() if topic.name in topics]
        wanted = ",".join("?" * len(numbers))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({wanted}) ORDER BY timestamp"  # noqa: S608 - question marks
        for number, log_ns, data in self._cursor.execute(query, numbers):
            if not isinstance(log_ns, int) or not isinstance(data, bytes):
                raise ValueError(f"a message is of {type(log_ns).__name__} and {type(data).__name__}")
            yield Message(self._topics[number], log_ns, data)


def open_messages(path: Path) -> McapReader | SqliteReader:
    """Open a ``.mcap`` or ``.db3`` file.

    Raises:
        OSError: The file does not exist or is not a regular file.
        ValueError, sqlite3.Error: The file is damaged.
    """
    return SqliteReader(path) if path.suffix.lower() == ".db3" else McapReader(path)
