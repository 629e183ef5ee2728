"""Recordings: what is in them, what survives a full disk and a cut, and that a replay gives the same labels."""

from __future__ import annotations

import json
import logging
import resource
import sys
import threading

import numpy as np
import pytest
from mcap.reader import SeekingReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from kd_edge import __version__
from kd_edge.errors import ConfigError, DataError, MissingExtraError
from kd_edge.runtime import messages, recording, stream
from kd_edge.runtime.cameras import open_camera
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.messages import McapWriter
from kd_edge.runtime.recording import Recorder
from kd_edge.runtime.uri import shown
from kd_edge.types import Cause, Frame, LabelState, Prediction, Reason
from tests.waiting import wait_for

from .cameras.test_bags import read_to_the_fault
from .cameras.test_replay import read_all
from .conftest import HandClock
from .stepped import GONE, Stepped
from .test_recurrence import stateful

LIVE = "synthetic:?fps=100&frames=80&height_px=48&width_px=64"


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    monkeypatch.setattr(recording, "CLOSE_SECONDS", 60.0)
    monkeypatch.setattr(recording, "STUCK_SECONDS", 60.0)


def label(source="ir0", frame_id=0, captured_ns=10, emitted_ns=12):
    return Prediction(
        source=source, label="wave", index=0, confidence=0.75, probabilities=np.array([0.75, 0.25], np.float32),
        state=LabelState.OK, frame_id=frame_id, captured_ns=captured_ns, emitted_ns=emitted_ns, valid_until_ns=99,
    )  # fmt: skip


def record(path, frames, cuts=None, source="ir0", **options):
    """A recording of frames alone."""
    recorder = Recorder(path, {"model": "tiny"}, lossless=True, clock=HandClock(), **options)
    recorder.open()
    recorder.add_camera(source, "nir", CameraConfig(uri="v4l2:/dev/video0"))
    recorder.start()
    for k, frame in enumerate(frames):
        if cuts and k in cuts:
            recorder.cut(source, cuts[k])
        recorder.frame(source, frame)
    recorder.close()
    return recorder


@pytest.mark.parametrize(
    ("dtype", "shape", "encoding"),
    [("uint8", (12, 16), "mono8"), ("uint16", (12, 16), "mono16"), ("uint8", (12, 16, 3), "rgb8")],
)
def test_frames_come_back_to_the_bit(tmp_path, noise, dtype, shape, encoding):
    images = noise(5, shape, dtype)
    stamps = [7, 1_000_000_007, 1_000_000_006, 5 * 10**15 + 1, 5 * 10**15 + 2]
    truths = [None, "wave", "wave", "clap", None]
    cuts = {0: Cause(Reason.START, "start"), 3: Cause(Reason.GAP, "no frame for 2 s")}
    frames = [Frame(i, s, 40 + 3 * k, "x", t) for k, (i, s, t) in enumerate(zip(images, stamps, truths, strict=True))]
    recorder = record(tmp_path / "a.mcap", frames, cuts)
    assert (recorder.counters.frames, recorder.counters.lost_frames, recorder.fault) == (5, 0, None)
    camera = open_camera(f"replay:{tmp_path}/a.mcap")
    assert (camera.name, camera.band, camera.dtype, camera.live) == ("ir0", "nir", dtype, False)
    read = read_all(camera)
    np.testing.assert_array_equal([f.image for f in read], images)
    assert [f.captured_ns for f in read] == stamps
    assert [f.frame_id for f in read] == [40, 43, 46, 49, 52]
    assert [f.truth for f in read] == truths
    assert [f.cut for f in read] == [cuts[0], None, None, cuts[3], None]
    # and another program reads the same images
    types, found = get_typestore(Stores.EMPTY), []
    with (tmp_path / "a.mcap").open("rb") as file:
        for schema, channel, message in SeekingReader(file).iter_messages("/kd_edge/ir0/image"):
            assert (schema.name, schema.encoding, channel.message_encoding) == (
                "sensor_msgs/msg/Image",
                "ros2msg",
                "cdr",
            )
            if not found:
                types.register(get_types_from_msg(schema.data.decode(), schema.name))  # by what the file says of them
            found.append((message.log_time, types.deserialize_cdr(message.data, schema.name)))
    assert [t for t, _ in found] == sorted(stamps)
    assert {(m.encoding, m.height, m.width, m.is_bigendian) for _, m in found} == {(encoding, 12, 16, 0)}
    np.testing.assert_array_equal(found[-1][1].data.view(dtype), images[-1].ravel())


@pytest.mark.slow
def test_a_recording_says_what_its_labels_came_of(tmp_path, make_model):
    model, _ = make_model()
    out = tmp_path / "labels.jsonl"
    with stream(
        model=model, camera=LIVE, record=tmp_path / "a.mcap", sinks=[f"jsonl:{out}"], threads=2, smooth_ms=0
    ) as labels:
        given = list(labels)
    assert labels.statistics.recorded == labels.statistics.pushed > 0
    with (tmp_path / "a.mcap").open("rb") as file:
        reader = SeekingReader(file, validate_crcs=True)
        metadata = {m.name: m.metadata for m in reader.iter_metadata()}
        topics = {c.topic: c for c in reader.get_summary().channels.values()}
        rows = [
            json.loads(m.data) for _, _, m in reader.iter_messages("/kd_edge/synthetic/action", log_time_order=False)
        ]
        schemas = {s.name: (s.encoding, s.data) for s in reader.get_summary().schemas.values()}
    about = metadata["kd_edge"]
    assert (about["version"], about["model"], about["engine"]) == (__version__, "tiny", labels.recognizer.engine.name)
    assert (about["threads"], about["smooth_ms"]) == ("2", "0")
    assert about["model_sha256"] == labels.recognizer.manifest.sha256
    assert len(about["model_sha256"]) == 64
    camera = metadata["kd_edge/camera/synthetic"]
    assert (camera["camera"], camera["band"]) == ("synthetic", "nir")
    assert json.loads(camera["settings"])["uri"] == LIVE
    assert sorted(topics) == [f"/kd_edge/synthetic/{kind}" for kind in ("action", "frame", "image")]
    assert rows == [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == len(given)
    ends = metadata["kd_edge/end"]
    assert ends["frames"] == str(labels.statistics.recorded)
    assert ends["labels_sha256/synthetic"] == labels.label_hash.hexdigest()
    assert schemas["kd_edge.Action"][0] == "jsonschema"
    assert set(json.loads(schemas["kd_edge.Action"][1])["properties"]) == set(rows[0])


def test_a_live_camera_replays_to_the_same_labels(tmp_path, make_model):
    model, _ = make_model()
    with stream(model=model, camera=LIVE, record=tmp_path / "a.mcap") as labels:
        live = [p for p in labels if p.state is not LabelState.STALE]
    hashes = [labels.label_hash.hexdigest()]
    for _ in range(2):
        with stream(model=model, camera=f"replay:{tmp_path}/a.mcap") as labels:
            replayed = list(labels)
        hashes.append(labels.label_hash.hexdigest())
        assert labels.cameras[0].recorded_hash == hashes[0]
    assert len(set(hashes)) == 1
    by_id = {p.frame_id: p for p in replayed}
    for p in live:
        np.testing.assert_array_equal(p.probabilities, by_id[p.frame_id].probabilities)


def replay_hash(stepped, path):
    """Of a replay on the same engine."""
    with stream(model=stepped.recognizer, camera=f"replay:{path}") as labels:
        predictions = list(labels)
    return labels.label_hash.hexdigest(), predictions


def test_what_interrupts_a_camera_interrupts_its_replay(tmp_path):
    """Reconnect, sleep, a jump of the clock, skipped, frozen and failed frames: the same windows, the same labels."""
    path = tmp_path / "a.mcap"
    stepped = Stepped("wall", record=path, max_age_ms=1000.0)
    clock = stepped.clock

    def frames(count, ms=20.0):
        for _ in range(count):
            clock.advance(ms)
            stepped.frame(stamp=clock.wall_ns())

    with stepped.running():
        frames(40)
        stepped.give(GONE)
        stepped.pass_by(400)
        frames(30)
        clock.wall_ahead_ns += 3_600_000_000_000  # the time of day is set
        frames(30)
        clock.nap_ns += 5_000_000_000
        frames(30)
        stepped.camera.turns.give(Frame(stepped.picture(), clock.wall_ns(), 1000, "stepped"))
        clock.advance(1500)
        stepped.take()  # too old when its turn comes: skipped
        frames(5)
        stepped.engine.failures = 2
        frames(30)
        frames(10, ms=700)
        frames(30)
        frozen = stepped.picture()
        for _ in range(130):
            clock.advance(20)
            stepped.frame(frozen, stamp=clock.wall_ns())
        frames(40)
    statistics = stepped.labels.statistics
    reasons = {p.reason for p in stepped.given}
    assert {Reason.RECONNECT, Reason.SUSPENDED, Reason.CLOCK_JUMP, Reason.GAP, Reason.FROZEN} <= reasons
    assert statistics.skipped
    assert statistics.engine_failures
    assert statistics.frozen
    live = stepped.labels.label_hash.hexdigest()
    first, predictions = replay_hash(stepped, path)
    second, _ = replay_hash(stepped, path)
    assert first == second == live
    assert {Reason.RECONNECT, Reason.SUSPENDED, Reason.CLOCK_JUMP, Reason.GAP} <= {p.reason for p in predictions}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["monotonic", "wall", "device", "arrival"])
def test_whatever_happens_to_a_camera_its_replay_gives_the_same_labels(tmp_path, kind):
    """Reconnects, clocks that step, sleep, other sizes, frames late, doubled, back in time, frozen or too old."""
    rng = np.random.default_rng(3)
    stepped = Stepped(kind, record=tmp_path / "a.mcap", max_age_ms=1000.0)
    clock, shape = stepped.clock, (16, 24)

    def frames(count, ms, back_ms=0.0, image=None):
        for _ in range(count):
            clock.advance(ms + rng.uniform(-3, 3))
            now_ns = clock.wall_ns() if kind == "wall" else clock.ns
            stepped.frame(stepped.picture(shape) if image is None else image, stamp=now_ns - round(back_ms * 1e6))

    with stepped.running():
        for _ in range(24):
            frames(int(rng.integers(1, 30)), float(rng.choice([10, 20, 33, 60, 130])))
            event = int(rng.integers(8))
            if event == 0:
                stepped.give(GONE)
                stepped.pass_by(float(rng.integers(100, 600)))
            elif event == 1:
                clock.wall_ahead_ns += int(rng.integers(-(10**12), 10**12))
            elif event == 2:
                clock.nap_ns += int(rng.integers(10**10))
            elif event == 3:
                shape = (int(rng.integers(10, 40)), int(rng.integers(10, 40)))
            elif event == 4:
                frames(1, 20, back_ms=float(rng.integers(60)))
            elif event == 5:
                stepped.pass_by(float(rng.integers(100, 1500)))
            elif event == 6:
                frames(20, 60, image=stepped.picture(shape))
            elif stepped.camera.turns.reading:
                stepped.camera.turns.give(Frame(stepped.picture(shape), clock.ns, stepped.count, "stepped"))
                stepped.count += 1
                clock.advance(float(rng.integers(1500)))
                stepped.take()
    assert replay_hash(stepped, tmp_path / "a.mcap")[0] == stepped.labels.label_hash.hexdigest()
    assert len({p.reason for p in stepped.given}) > 4


def test_frames_between_two_labels_are_recorded(tmp_path, noise):
    """A model with memory takes them in and labels every fifth one."""
    path = tmp_path / "a.mcap"
    model, _ = stateful(tmp_path)
    np.save(tmp_path / "clip.npy", noise(60, (16, 16)))
    hashes = []
    for camera, kept in ((f"{tmp_path}/clip.npy?fps=20", path), (path, None)):
        with stream(model=model, camera=f"replay:{camera}", record=kept) as labels:
            assert len(list(labels)) == 12
        hashes.append(labels.label_hash.by_source)
    assert len(read_all(open_camera(f"replay:{path}"))) == 60
    assert hashes[0] == hashes[1]


def test_a_recording_can_be_recorded_again(tmp_path, make_model, noise):
    model, _ = make_model()
    np.save(tmp_path / "clip.npy", noise(40))
    hashes = []
    for source, target in (("clip.npy", "a.mcap"), ("a.mcap", "b.mcap"), ("b.mcap", "c.mcap")):
        with stream(model=model, camera=f"replay:{tmp_path}/{source}", record=tmp_path / target) as labels:
            list(labels)
        assert labels.statistics.recorded == 40
        hashes.append(labels.label_hash.hexdigest())
    assert len(set(hashes)) == 1
    other, _ = make_model(temperature=2.0)
    with stream(model=other, camera=f"replay:{tmp_path}/a.mcap") as labels:
        list(labels)
    assert labels.label_hash.hexdigest() != hashes[0]


def test_in_real_time_it_is_paced_from_its_first_frame(tmp_path, noise):
    clock = HandClock()
    record(tmp_path / "a.mcap", [Frame(i, 9 * 10**15 + k * 20_000_000, k, "x") for k, i in enumerate(noise(5))])
    camera = open_camera(f"replay:{tmp_path}/a.mcap", realtime=True, clock=clock)
    began_ns = clock.now_ns()
    assert [camera.read(1.0).captured_ns - began_ns for _ in range(5)] == [k * 20_000_000 for k in range(5)]
    camera.close()


def label_to_the_fault(model, path):
    """The probabilities before a fault, and what is said of it."""
    found = []
    try:
        with stream(model=model, camera=f"replay:{path}") as labels:
            for prediction in labels:
                found.append(prediction.probabilities.tolist())  # noqa: PERF401 - it ends in an error
    except DataError as error:
        return found, str(error)
    return found, ""


@pytest.mark.slow
def test_a_cut_off_recording_is_labelled_up_to_the_cut(tmp_path, make_model, noise):
    model, _ = make_model()
    np.save(tmp_path / "clip.npy", noise(30, (480, 640)))
    with stream(model=model, camera=f"replay:{tmp_path}/clip.npy", record=tmp_path / "a.mcap") as labels:
        expected = [p.probabilities.tolist() for p in labels]
    whole = (tmp_path / "a.mcap").read_bytes()
    cut, counts = tmp_path / "cut.mcap", []
    for size in range(30_000, len(whole), len(whole) // 9):
        cut.write_bytes(whole[:size])
        found, fault = label_to_the_fault(model, cut)
        assert f"it breaks off after {size:,} bytes" in fault
        assert found == expected[: len(found)]
        assert 30 * size / len(whole) - len(found) <= 10  # a cut costs one chunk, eight frames
        counts.append(len(found))
    assert counts == sorted(counts)


def test_a_full_disk_ends_the_recording_and_no_label(tmp_path, make_model, noise, caplog):
    """The limit of a process's files stands for the disk's."""
    model, _ = make_model()
    np.save(tmp_path / "clip.npy", noise(40, (240, 320)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.WARNING, "kd_edge.runtime"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with stream(model=model, camera=f"replay:{tmp_path}/clip.npy", record=tmp_path / "a.mcap") as labels:
                given = list(labels)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(given) == 40
    assert caplog.text.count("has stopped: File too large; labels go on") == 1
    statistics = labels.statistics
    assert statistics.record_fault == "File too large"
    assert (statistics.recorded + statistics.unrecorded, statistics.unrecorded > 20) == (40, True)
    assert (tmp_path / "a.mcap").stat().st_size <= 1_000_000
    read, fault = read_to_the_fault(f"replay:{tmp_path}/a.mcap")
    assert "breaks off" in fault
    assert len(read) == statistics.recorded


class SlowWriter(McapWriter):
    """Waits for leave with every message."""

    leave = threading.Semaphore(0)

    def write(self, *arguments):
        assert self.leave.acquire(timeout=60)
        return super().write(*arguments)


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(SlowWriter, "leave", threading.Semaphore(0))
    monkeypatch.setattr(recording, "McapWriter", SlowWriter)
    monkeypatch.setattr(recording, "QUEUE_LENGTH", 4)
    return SlowWriter.leave


def test_a_slow_disk_loses_frames_and_says_how_many(tmp_path, noise, slow, caplog):
    recorder = Recorder(tmp_path / "a.mcap", {}, clock=HandClock())
    recorder.open()
    recorder.add_camera("ir0", None, None)
    recorder.start()
    frames = [Frame(image, k, k, "ir0") for k, image in enumerate(noise(20))]
    recorder.frame("ir0", frames[0])
    wait_for(lambda: not recorder._queue)  # it is being written
    for frame in frames[1:10]:
        recorder.frame("ir0", frame)  # returns at once
    recorder.cut("ir0", Cause(Reason.RECONNECT, "reconnect"))
    recorder.frame("ir0", frames[10])
    recorder.label(label())
    assert (recorder.counters.lost_frames, recorder.counters.lost_labels) == (6, 1)
    slow.release(2 * 5)
    wait_for(lambda: recorder.counters.frames == 5)
    slow.release(100)
    recorder.frame("ir0", frames[11])
    recorder.close()
    assert caplog.text.count("the disk is too slow; frames are left out") == 1
    read = read_all(open_camera(f"replay:{tmp_path}/a.mcap"))
    assert [f.frame_id for f in read] == [0, 1, 2, 3, 4, 11]
    assert read[-1].cut == Cause(Reason.RECONNECT, "reconnect")  # which the lost frame would have told
    with (tmp_path / "a.mcap").open("rb") as file:
        said = [json.loads(m.data) for _, _, m in SeekingReader(file).iter_messages("/kd_edge/ir0/frame")]
    assert [s["lost"] for s in said] == [0, 0, 0, 0, 0, 6]


def test_a_recording_of_a_recording_waits_for_the_disk(tmp_path, noise, slow):
    done = threading.Thread(
        target=record, args=(tmp_path / "a.mcap", [Frame(i, k, k, "") for k, i in enumerate(noise(20))])
    )
    done.start()
    for _ in range(40):
        slow.release()
    done.join(60)
    assert len(read_all(open_camera(f"replay:{tmp_path}/a.mcap"))) == 20


def test_the_queue_is_bounded_in_bytes(tmp_path, noise, slow, monkeypatch):
    monkeypatch.setattr(recording, "QUEUE_LENGTH", 1000)
    monkeypatch.setattr(recording, "QUEUE_BYTES", 10_000)
    recorder = Recorder(tmp_path / "a.mcap", {}, clock=HandClock())
    recorder.open()
    recorder.add_camera("ir0", None, None)
    recorder.start()
    images = noise(10, (60, 80))  # 4800 bytes each, and 2048 for what is said of them
    for k, image in enumerate(images):
        recorder.frame("ir0", Frame(image, k, k, "ir0"))
        wait_for(lambda k=k: k > 0 or not recorder._queue)
    assert recorder.counters.lost_frames == 8
    slow.release(100)
    recorder.close()
    assert recorder.counters.frames == 2


def test_a_file_has_an_end(tmp_path, noise, monkeypatch, caplog):
    """What is remembered of its chunks is bounded."""
    monkeypatch.setattr(recording, "MOST_CHUNKS", 2)
    recorder = record(tmp_path / "a.mcap", [Frame(i, k, k, "x") for k, i in enumerate(noise(30, (240, 320)))])
    assert (recorder.counters.frames, recorder.counters.lost_frames) == (16, 14)
    assert caplog.text.count("has stopped: it has reached its maximum length") == 1
    assert len(read_all(open_camera(f"replay:{tmp_path}/a.mcap"))) == 16  # and is whole


def test_without_the_packages_no_file_is_made(tmp_path, monkeypatch):
    for module in ("mcap.writer", "rosbags.typesys"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            messages._types.cache_clear()
            with pytest.raises(MissingExtraError, match=r"\[mcap\]"):
                Recorder(tmp_path / "a.mcap", {}).open()
    assert list(tmp_path.iterdir()) == []


def test_a_recording_of_nothing_is_whole(tmp_path):
    record(tmp_path / "a.mcap", [])
    frames, fault = read_to_the_fault(f"replay:{tmp_path}/a.mcap")
    assert frames == []
    assert "a.mcap cannot be replayed: it has no frame" in fault


def test_several_cameras_share_a_file(tmp_path, noise):
    recorder = Recorder(tmp_path / "a.mcap", {}, lossless=True, clock=HandClock())
    recorder.open()
    for name in ("ir0", "ir1", "ir.1", "7"):
        recorder.add_camera(name, "lwir", None)
    recorder.start()
    images = noise(8)
    for k in range(4):
        recorder.frame("ir0", Frame(images[k], k, k, "ir0"))
        recorder.frame("ir1", Frame(images[4 + k], k, k, "ir1"))
    recorder.close({"ir0": "aa", "ir1": "bb"})
    for name, expected in (("ir0", images[:4]), ("ir1", images[4:])):
        camera = open_camera(f"replay:{tmp_path}/a.mcap?topic=/kd_edge/{name}/image")
        assert (camera.name, camera.band) == (name, "lwir")
        np.testing.assert_array_equal([f.image for f in read_all(camera)], expected)
    with pytest.raises(ConfigError, match="has 4 image topics: /kd_edge/camera_7/image, /kd_edge/ir0/image, "):
        open_camera(f"replay:{tmp_path}/a.mcap")


def test_two_cameras_of_a_recording_are_replayed_together(tmp_path, make_model, noise):
    model, _ = make_model()
    uris = []
    for name, fps in (("ir0", 30), ("ir1", 25)):
        np.save(tmp_path / f"{name}.npy", noise(40, seed=fps))
        uris.append(f"{name}=replay:{tmp_path}/{name}.npy?fps={fps}")
    with stream(model=model, camera=uris, record=tmp_path / "a.mcap") as labels:
        list(labels)
    recorded = labels.label_hash.by_source
    assert list(recorded) == ["ir0", "ir1"]
    both = [f"replay:{tmp_path}/a.mcap?topic=/kd_edge/{name}/image" for name in recorded]
    with stream(model=model, camera=both) as labels:
        list(labels)
    assert labels.label_hash.by_source == recorded
    for uri, name in zip(both, recorded, strict=True):
        with stream(model=model, camera=uri) as labels:
            list(labels)
        assert labels.label_hash.by_source == {name: recorded[name]}
    (tmp_path / "b.mcap").write_bytes((tmp_path / "a.mcap").read_bytes())
    twice = [both[0], both[0].replace("a.mcap", "b.mcap")]  # two files of one camera
    with pytest.raises(ConfigError, match="two cameras called 'ir0'"), stream(model=model, camera=twice):
        pass


def test_a_recording_is_a_new_file_of_ones_own(tmp_path, make_model, noise):
    model, _ = make_model()
    np.save(tmp_path / "clip.npy", noise(3))
    camera = f"replay:{tmp_path}/clip.npy"
    with stream(model=model, camera=camera, record=tmp_path / "a.mcap") as labels:
        list(labels)
    assert (tmp_path / "a.mcap").stat().st_mode & 0o137 == 0  # no others, no writing group
    (tmp_path / "link.mcap").symlink_to(tmp_path / "nowhere")
    for path, found in (
        ("a.mcap", "exists already"),
        ("link.mcap", "exists already"),
        ("no/b.mcap", "cannot be recorded to"),
        ("b.bag", r"ending in \.mcap"),
    ):
        with pytest.raises(ConfigError, match=found), stream(model=model, camera=camera, record=tmp_path / path):
            pass
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "uri", ["rtsp://admin:s3cret@10.0.0.7:554/live", "http://10.0.0.7/v?user=me&Password=s3cret&size=2&apikey=s3cret"]
)
def test_no_password_is_recorded(tmp_path, uri):
    recorder = Recorder(tmp_path / "a.mcap", {}, clock=HandClock())
    recorder.open()
    recorder.add_camera(shown(uri), None, CameraConfig(uri=uri))
    recorder.start()
    recorder.frame(shown(uri), Frame(np.zeros((2, 2), np.uint8), 1, 1, uri))
    recorder.close({shown(uri): "00"})
    assert b"s3cret" not in (tmp_path / "a.mcap").read_bytes()
