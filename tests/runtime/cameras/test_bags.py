"""Image topics of MCAP and rosbag2, written by the libraries that other programs use."""

from __future__ import annotations

import sqlite3
import struct

import cv2
import numpy as np
import pytest
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter
from rosbags.typesys import Stores, get_typestore

from kd_edge.errors import ConfigError, DataError
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.cameras.realsense_recording import is_recording
from kd_edge.runtime.ros.images import ENCODINGS
from kd_edge.types import Cause, Reason

from .test_replay import read_all

TYPES = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
MS = 1_000_000
START_NS = 1_790_000_000 * 1_000_000_000


def read_to_the_fault(uri):
    """The frames before a fault, and what is said of it."""
    frames = []
    try:
        camera = open_camera(uri)
        while not camera.ended:
            frames.append(camera.read(1.0))
    except DataError as error:
        return frames, str(error)
    camera.close()
    return frames, ""


def header(stamp_ns):
    time = TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000))
    return TYPES.types["std_msgs/msg/Header"](time, "camera")


def image(pixels, encoding="mono8", stamp_ns=START_NS, padding=0, big=False):
    """The CDR bytes of an image, each row followed by padding."""
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")))
    rows = rows.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    message = TYPES.types[IMAGE](
        header(stamp_ns), pixels.shape[0], pixels.shape[1], encoding, int(big), rows.shape[1], rows.reshape(-1)
    )
    return bytes(TYPES.serialize_cdr(message, IMAGE))


def compressed(content, format_, stamp_ns=START_NS):
    message = TYPES.types[COMPRESSED](header(stamp_ns), format_, np.frombuffer(content, np.uint8))
    return bytes(TYPES.serialize_cdr(message, COMPRESSED))


def write_bag(path, messages, storage=StoragePlugin.SQLITE3, type_=IMAGE, mode=CompressionMode.NONE):
    """A rosbag2 folder: ``messages`` are (topic, log_ns, bytes)."""
    writer = BagWriter(path, version=9, storage_plugin=storage)
    if mode is not CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topics = dict.fromkeys(topic for topic, _, _ in messages)
        connections = {topic: writer.add_connection(topic, type_, typestore=TYPES) for topic in topics}
        for topic, log_ns, data in messages:
            writer.write(connections[topic], log_ns, data)
    return path


def write_mcap(path, messages, type_=IMAGE, **options):
    with path.open("wb") as file:
        writer = Writer(file, **options)
        writer.start(profile="ros2")
        schema = writer.register_schema(type_, "ros2msg", b"")
        channels = {t: writer.register_channel(t, "cdr", schema) for t in dict.fromkeys(m[0] for m in messages)}
        for topic, log_ns, data in messages:
            writer.add_message(channels[topic], log_ns, data, log_ns)
        writer.finish()
    return path


@pytest.fixture
def frames(noise):
    return noise(6, (12, 16))


@pytest.fixture
def messages(frames):
    """33 ms apart, logged 5 ms after their capture."""
    stamps = [START_NS + k * 33 * MS for k in range(len(frames))]
    return [("/ir/image", s + 5 * MS, image(f, stamp_ns=s)) for f, s in zip(frames, stamps, strict=True)]


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_rosbag2_folders_and_their_files(tmp_path, frames, messages, storage, mode):
    folder = write_bag(tmp_path / "bag", messages, storage, mode=mode)
    (file,) = [p for p in folder.iterdir() if p.suffix in (".db3", ".mcap")]
    for path in (folder, file):
        camera = open_camera(f"replay:{path}", Wanted("nir", "uint8", 1))
        assert (camera.dtype, camera.channels, camera.live) == ("uint8", 1, False)
        read = read_all(camera)
        np.testing.assert_array_equal([f.image for f in read], frames)
        assert [f.captured_ns for f in read] == [START_NS + k * 33 * MS for k in range(6)]  # the header's stamps
        assert [f.frame_id for f in read] == list(range(6))
        assert {f.source for f in read} == {path.name}


def test_rosbag2_compressed_file_by_file_says_how_to_go_on(tmp_path, messages):
    folder = write_bag(tmp_path / "bag", messages, mode=CompressionMode.FILE)
    with pytest.raises(DataError, match=r"compressed as a whole.*zstd -d bag\.db3\.zstd"):
        open_camera(f"replay:{folder}")


@pytest.mark.parametrize("compression", list(CompressionType))
@pytest.mark.parametrize("chunks", [False, True])
def test_mcap_in_every_form(tmp_path, frames, messages, compression, chunks):
    path = write_mcap(tmp_path / "a.mcap", messages, compression=compression, use_chunking=chunks, chunk_size=500)
    read = read_all(open_camera(f"replay:{path}"))
    np.testing.assert_array_equal([f.image for f in read], frames)
    assert all(f.image.flags.writeable for f in read)


def test_split_bags_are_read_in_the_order_of_their_numbers(tmp_path, frames, messages):
    (tmp_path / "bag").mkdir()
    for k, message in enumerate(messages):
        write_mcap(tmp_path / "bag" / f"bag_{k + 7}.mcap", [message])  # 7, 8, 9, 10, 11, 12
    (tmp_path / "bag" / "._bag_7.mcap").write_text("of macOS")
    np.testing.assert_array_equal([f.image for f in read_all(open_camera(f"replay:{tmp_path}/bag"))], frames)


COLOUR = np.array([[[200, 100, 50], [1, 2, 3]], [[4, 5, 6], [7, 8, 9]]], np.uint8)  # R, G, B
GREY16 = np.array([[1, 256], [65535, 4000]], np.uint16)


@pytest.mark.parametrize(
    ("encoding", "stored", "expected"),
    [
        ("mono8", COLOUR[:, :, 0], COLOUR[:, :, 0]),
        ("8UC1", COLOUR[:, :, 0], COLOUR[:, :, 0]),
        ("mono16", GREY16, GREY16),
        ("16UC1", GREY16, GREY16),
        ("rgb8", COLOUR, COLOUR),
        ("bgr8", COLOUR[:, :, ::-1], COLOUR),
        ("8UC3", COLOUR[:, :, ::-1], COLOUR),
        ("rgb16", COLOUR.astype(np.uint16) * 257, COLOUR.astype(np.uint16) * 257),
        ("rgba8", np.dstack([COLOUR, GREY16.astype(np.uint8)]), COLOUR),
        ("bgra8", np.dstack([COLOUR[:, :, ::-1], GREY16.astype(np.uint8)]), COLOUR),
    ],
)
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big", [False, True])
def test_encodings(tmp_path, encoding, stored, expected, padding, big):
    assert encoding in ENCODINGS
    path = write_mcap(tmp_path / "a.mcap", [("/i", 7, image(stored, encoding, padding=padding, big=big))])
    (frame,) = read_all(open_camera(f"replay:{path}"))
    np.testing.assert_array_equal(frame.image, expected)
    assert frame.image.dtype == expected.dtype


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_colour_is_grey_where_the_model_wants_grey(tmp_path, encoding):
    stored = COLOUR if encoding == "rgb8" else COLOUR[:, :, ::-1]
    path = write_mcap(tmp_path / "a.mcap", [("/i", 7, image(stored, encoding))])
    (frame,) = read_all(open_camera(f"replay:{path}", Wanted(channels=1)))
    assert frame.image[0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_compressed_images(tmp_path):
    png = cv2.imencode(".png", COLOUR[:, :, ::-1])[1].tobytes()
    depth = b"\0" * 12 + cv2.imencode(".png", GREY16)[1].tobytes()
    for name, content, format_, expected in (
        ("colour", png, "rgb8; png compressed bgr8", COLOUR),
        ("depth", depth, "16UC1; compressedDepth png", GREY16),
    ):
        path = write_mcap(tmp_path / f"{name}.mcap", [("/i", 7, compressed(content, format_))], COMPRESSED)
        (frame,) = read_all(open_camera(f"replay:{path}"))
        np.testing.assert_array_equal(frame.image, expected)
    flat = np.full((16, 16), 90, np.uint8)
    jpeg = cv2.imencode(".jpg", flat)[1].tobytes()
    folder = write_bag(tmp_path / "bag", [("/i", 7, compressed(jpeg, "jpeg"))], type_=COMPRESSED)
    np.testing.assert_array_equal(read_all(open_camera(f"replay:{folder}"))[0].image, flat)


def test_without_a_stamp_the_log_time_counts(tmp_path, frames):
    path = write_mcap(tmp_path / "a.mcap", [("/i", 70 + k, image(f, stamp_ns=0)) for k, f in enumerate(frames)])
    assert [f.captured_ns for f in read_all(open_camera(f"replay:{path}"))] == [70, 71, 72, 73, 74, 75]


def test_one_of_several_topics(tmp_path, frames):
    path = write_mcap(tmp_path / "a.mcap", [("/left", 1, image(frames[0])), ("/right", 2, image(frames[1]))])
    (frame,) = read_all(open_camera(f"replay:{path}?topic=/right"))
    np.testing.assert_array_equal(frame.image, frames[1])
    with pytest.raises(ConfigError, match=r"has 2 image topics: /left, /right.*replay:.*\?topic=/left"):
        open_camera(f"replay:{path}")
    with pytest.raises(ConfigError, match=r"topic /rigth is not in .* \(did you mean '/right'\?\)"):
        open_camera(f"replay:{path}?topic=/rigth")
    np.save(tmp_path / "a.npy", frames)
    with pytest.raises(ConfigError, match=r"topic /right of .*a\.npy"):
        open_camera(f"replay:{tmp_path}/a.npy?topic=/right")
    with pytest.raises(ConfigError, match=r"topic, which no v4l2: camera has.*use them with replay:"):
        open_camera("v4l2:/dev/video9?topic=/right")


def test_no_image_topic(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", [("/chat\nter", 1, b"")], "std_msgs/msg/String")
    with pytest.raises(DataError, match=r"no image topic, but /chat\\nter \(std_msgs/msg/String\)"):
        open_camera(f"replay:{path}")


def test_realsense_is_told_by_its_topics(tmp_path, messages, frames):
    ours = write_bag(tmp_path / "ours", messages) / "ours.db3"
    theirs = write_bag(tmp_path / "rs", [("/device_0/sensor_0/Infrared_1/image/data", 1, image(frames[0]))]) / "rs.db3"
    assert (is_recording(ours), is_recording(theirs), is_recording(tmp_path / "no.db3")) == (
        False,
        True,
        False,
    )


def broken(data, at, form, value):
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: broken(data, data.index(b"mono8") - 12, "<I", 4_000_000_000), "pixels, not 1 to"),  # height
        (lambda data: broken(data, data.index(b"mono8") - 12, "<I", 13), "bytes in rows of 16, not 208"),
        (lambda data: broken(data, data.index(b"mono8") + 8, "<I", 15), "bytes in rows of 15"),  # step
        (lambda data: broken(data, data.index(b"mono8") + 8, "<I", 1 << 31), "bytes in rows of 2,147,483,648"),
        (lambda data: broken(data, data.index(b"mono8") + 12, "<I", 1 << 31), "is damaged"),  # bytes
        (lambda data: data.replace(b"mono8", b"yuv22"), "encoded as 'yuv22', not as one of mono8"),
        (lambda data: data[:40], "is damaged"),
        (lambda data: b"", "is damaged"),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, "is damaged"),
    ],
)
def test_a_damaged_message_is_told_after_those_before_it(tmp_path, messages, damage, found):
    messages[2] = (*messages[2][:2], damage(messages[2][2]))
    for path in (write_mcap(tmp_path / "a.mcap", messages), write_bag(tmp_path / "bag", messages)):
        camera = open_camera(f"replay:{path}")
        assert [camera.read(1.0).frame_id for _ in range(2)] == [0, 1]
        with pytest.raises(DataError, match=found):
            camera.read(1.0)
        assert camera.ended
        camera.close()


@pytest.mark.parametrize("compression", list(CompressionType))
def test_a_cut_off_file_is_read_up_to_there(tmp_path, frames, messages, compression):
    whole = write_mcap(tmp_path / "a.mcap", messages, compression=compression, chunk_size=100).read_bytes()
    path, counts = tmp_path / "cut.mcap", []
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        read, fault = read_to_the_fault(f"replay:{path}")
        assert any(words in fault for words in ("breaks off", "not begin", "no image topic"))
        assert "\n" not in fault
        for frame, expected in zip(read, frames, strict=False):
            np.testing.assert_array_equal(frame.image, expected)
        counts.append(len(read))
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 6)


def test_a_cut_off_sqlite_file_is_no_traceback(tmp_path, messages):
    whole = (write_bag(tmp_path / "bag", messages * 40) / "bag.db3").read_bytes()
    path = tmp_path / "cut.db3"
    for size in range(0, len(whole), 4096 + 511):
        path.write_bytes(whole[:size])
        read, fault = read_to_the_fault(f"replay:{path}")
        assert fault
        assert "\n" not in fault
        assert len(read) < 240


def test_flipped_bits_are_found_by_the_checksums(tmp_path, messages):
    whole = bytearray(write_mcap(tmp_path / "a.mcap", messages, chunk_size=100).read_bytes())
    whole[len(whole) // 3] ^= 0x10
    (tmp_path / "b.mcap").write_bytes(whole)
    read, fault = read_to_the_fault(f"replay:{tmp_path}/b.mcap")
    assert "b.mcap cannot be replayed" in fault
    assert len(read) < 6


def test_a_chunk_that_unpacks_to_more_than_it_says(tmp_path, monkeypatch, noise):
    """Nothing larger than a record may be is made room for."""
    path = write_mcap(tmp_path / "a.mcap", [("/i", 7, image(np.zeros((1000, 1000), np.uint8)))])
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("kd_edge.runtime.messages.RECORD_BYTES", 500_000)
    with pytest.raises(DataError, match=r"a chunk claims 1,000,\d+ bytes, more than 500,000"):
        open_camera(f"replay:{path}")


def test_what_lies_in_a_write_ahead_log_is_not_left_out_in_silence(tmp_path, messages):
    folder = write_bag(tmp_path / "bag", messages)
    (folder / "bag.db3-wal").write_bytes(b"more")
    with pytest.raises(DataError, match=r"still in bag\.db3-wal; sqlite3 bag\.db3 'PRAGMA wal_checkpoint'"):
        open_camera(f"replay:{folder}")


def test_a_later_format_is_refused(tmp_path, frames):
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema(IMAGE, "ros2msg", b"")
        writer.register_channel("/kd_edge/ir0/image", "cdr", schema, {"kd_edge": "2\x1b", "camera": "ir0"})
        writer.finish()
    with pytest.raises(DataError, match=r"recorded in format 2\\x1b\. Expected format 1"):
        open_camera(f"replay:{path}")


def test_a_table_that_makes_its_rows_up_is_refused(tmp_path):
    """A view without end, and a column that costs a gigabyte a row."""
    tables = "CREATE TABLE topics(id, name, type, serialization_format);"
    tables += f"INSERT INTO topics VALUES (1, '/i', '{IMAGE}', 'cdr');"
    for name, messages, found in (
        (
            "view",
            "CREATE VIEW messages AS SELECT 1 AS topic_id, 1 AS timestamp, x'00' AS data",
            "lacks the tables messages",
        ),
        (
            "column",
            "CREATE TABLE messages(topic_id, timestamp, data AS (zeroblob(900000000)));"
            "INSERT INTO messages VALUES (1, 1)",
            "too big|is damaged",
        ),
        (
            "text",
            "CREATE TABLE messages(topic_id, timestamp, data); INSERT INTO messages VALUES (1, 1, 'a')",
            "int and str",
        ),
    ):
        made = sqlite3.connect(tmp_path / f"{name}.db3")
        made.executescript(tables + messages)
        made.commit()
        made.close()
        with pytest.raises(DataError, match=found):
            open_camera(f"replay:{tmp_path}/{name}.db3")


def test_a_bag_may_bear_any_name(tmp_path, frames, messages):
    folder = write_bag(tmp_path / "bag", messages)
    path = (folder / "bag.db3").rename(tmp_path / "a%41#b.db3")
    assert len(read_all(open_camera(f"replay:{path}"))) == 6


def test_a_rate_of_ones_own_replaces_the_stamps(tmp_path, messages):
    path = write_mcap(tmp_path / "a.mcap", messages)
    stamps = [f.captured_ns for f in read_all(open_camera(f"replay:{path}?fps=10"))]
    assert stamps == [k * 100_000_000 for k in range(6)]


def test_foreign_sqlite_and_text_are_refused(tmp_path):
    sqlite3.connect(tmp_path / "a.db3").close()
    (tmp_path / "b.db3").write_text("no data base" * 100)
    (tmp_path / "c.mcap").write_text("no mcap at all" * 100)
    for name in ("a.db3", "b.db3", "c.mcap"):
        with pytest.raises(DataError, match=f"{name} cannot be replayed"):
            open_camera(f"replay:{tmp_path}/{name}")
    with pytest.raises(DataError, match="no recording"):
        open_camera(f"replay:{tmp_path}/d.mcap")


def test_a_cut_reaches_the_window(tmp_path):
    """A frame says what happened before it; the capture hands that on."""
    from kd_edge.runtime.capture import Capture
    from kd_edge.types import Frame
    from tests.runtime.conftest import HandCamera
    from tests.waiting import wait_for

    camera = HandCamera()
    capture = Capture(camera, open_camera("synthetic:").timeouts)
    camera.open()
    cause = Cause(Reason.RECONNECT, "reconnect")
    capture.start()
    try:
        now_ns = __import__("time").monotonic_ns()
        camera.given.put(Frame(np.eye(8, dtype=np.uint8), now_ns, 0, "hand", cut=cause))
        taken = []
        wait_for(lambda: taken or taken.append(capture.get(0.1)) or taken[-1] is not None or taken.clear())
        assert (taken[0].cut.number, taken[0].cut.cause) == (1, cause)
    finally:
        capture.stop()
