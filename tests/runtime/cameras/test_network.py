"""Network cameras over the real FFmpeg, on loopback. RTSP needs a server of the system's: tools/bench_network.py."""

from __future__ import annotations

import datetime
import io
import ipaddress
import logging
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction

import av
import numpy as np
import pytest

from kd_edge.artifact import BUNDLED
from kd_edge.errors import BadPictureError, CameraError, ConfigError, KdEdgeError
from kd_edge.runtime.cameras import Wanted, connected, make_camera, network, open_camera
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.cameras.connection import Arrivals, Connection
from kd_edge.runtime.cameras.network import NetworkCamera, _image
from kd_edge.runtime.capture import Capture
from kd_edge.runtime.stream import stream
from kd_edge.types import LabelState
from tests.runtime.cameras.senders import (
    MjpegServer,
    Send,
    Story,
    encoded,
    every_but,
    free_udp_port,
    jpeg,
    mjpeg_server,
    mpegts_sender,
    part,
    picture,
    steadily,
)
from tests.waiting import PATIENCE_SECONDS

GREY = Wanted(None, "uint8", 1)
SERVE = Callable[[dict[str, Story]], MjpegServer]


@pytest.fixture
def serve() -> Iterator[SERVE]:
    """Start a server that tells a story per path; it is stopped after the test."""
    with ExitStack() as running:
        yield lambda stories: running.enter_context(mjpeg_server(stories))


def read_until_fault(camera: NetworkCamera, seconds: float) -> tuple[list[np.ndarray], KdEdgeError | None]:
    images, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            frame = camera.read(0.1)
        except BadPictureError:
            continue
        except CameraError as error:
            return images, error
        if frame is not None:
            images.append(frame.image)
    return images, None


def test_mjpeg(serve):
    server = serve({"ir": steadily([jpeg(k) for k in range(200)])})
    before_ns = time.monotonic_ns()
    with closing(open_camera(server.url("ir#fps=100"), GREY)) as camera:
        frames = [camera.read(2.0) for _ in range(4)]
    stamps_ns = [before_ns, *(frame.captured_ns for frame in frames), time.monotonic_ns()]
    assert stamps_ns == sorted(set(stamps_ns))
    assert [frame.frame_id for frame in frames] == [0, 1, 2, 3]
    assert {frame.source for frame in frames} == {server.url("ir")}
    assert (camera.dtype, camera.channels, camera.fps) == ("uint8", 1, 100.0)
    values = [int(frame.image[0, 0]) for frame in frames]
    assert all(np.array_equal(frame.image, np.full((48, 64), v)) for frame, v in zip(frames, values, strict=True))
    assert values == sorted(set(values))
    frames[0].image[:] = 0  # the image is the caller's


@pytest.mark.parametrize(
    ("colour", "wanted", "shape"),
    [
        (True, None, (48, 64, 3)),
        (True, 3, (48, 64, 3)),
        (True, 1, (48, 64)),
        (False, None, (48, 64)),
        (False, 1, (48, 64)),
    ],
)
def test_grey_or_colour(serve, colour, wanted, shape):
    server = serve({"cam": steadily([jpeg(77, colour=colour)])})
    with closing(open_camera(server.url("cam#fps=100"), Wanted(None, None, wanted))) as camera:
        assert np.array_equal(camera.read(2.0).image, np.full(shape, 77))


def test_colour_is_not_invented(serve):
    server = serve({"cam": steadily([jpeg(77, colour=False)])})
    with pytest.raises(CameraError, match="has channels 1"):
        open_camera(server.url("cam#fps=100"), Wanted(None, None, 3))


def matroska(images: list[np.ndarray], pixel_format: str) -> bytes:
    """The images without loss, one a hundredth of a second."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska", options={"live": "1", "cluster_time_limit": "10"}) as container:
        stream = container.add_stream("ffv1", rate=Fraction(100))
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pixel_format
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=pixel_format)))
        container.mux(stream.encode())
    return file.getvalue()


def bit_by_bit(movie: bytes) -> Story:
    def tell(send: Send) -> None:
        step = len(movie) // 50
        for at in range(0, len(movie), step):
            send(movie[at : at + step])
            time.sleep(0.02)

    return tell


def test_sixteen_bits_stay_as_they_are(serve):
    image = np.linspace(0, 65535, 64 * 48, dtype=np.uint16).reshape(48, 64)
    movie = matroska([image] * 40, "gray16le")
    server = serve({"thermal.mkv": bit_by_bit(movie)})
    url = server.url("thermal.mkv#fps=100")
    with closing(open_camera(url, Wanted(None, "uint16", 1))) as camera:
        frame = camera.read(2.0)
    assert frame.image.dtype == np.uint16
    assert np.array_equal(frame.image, image)
    with pytest.raises(CameraError, match="has dtype uint16"):
        open_camera(url, GREY)


@pytest.mark.parametrize("pixel_format", ["gray10le", "gray12le", "gray16be", "gray16le"])
def test_grey_counts_are_those_of_the_sender(pixel_format):
    frame = av.VideoFrame(30, 20, pixel_format)  # rows are padded
    plane = frame.planes[0]
    rows = np.zeros((20, plane.line_size // 2), ">u2" if pixel_format.endswith("be") else "<u2")
    rows[:, :30] = np.arange(600).reshape(20, 30)
    plane.update(rows.tobytes().ljust(plane.buffer_size, b"\0"))
    assert np.array_equal(_image(frame, 1), np.arange(600, dtype=np.uint16).reshape(20, 30))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("nothing", r"has no such stream \(404\)"),
        ("closed", "requires credentials"),
        ("forbidden", "requires credentials"),
        ("page", "does not send video"),
        ("elsewhere", "cannot be opened|nothing listens"),  # redirected to a file of this machine
        ("empty", "does not send video"),
        ("mute#open_timeout_ms=200", "no answer within 200 ms"),
        ("silent#open_timeout_ms=200", "no answer within 200 ms"),  # the headers, then nothing
    ],
)
def test_an_http_server_that_sends_no_pictures(serve, path, found):
    server = serve({"silent": lambda send: server.wait(), "empty": lambda send: None})
    with pytest.raises(CameraError, match=found) as caught:
        open_camera(server.url(path))
    assert str(caught.value).isprintable()


def test_a_playlist_opens_no_file_of_this_machine(serve, tmp_path):
    secret = tmp_path / "clip.ts"
    with av.open(str(secret), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux([packet for k in range(25) for packet in stream.encode(picture(k, (64, 48)))])
        container.mux(stream.encode())
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n".encode()
    server = serve({"live.m3u8": lambda send: send(playlist)})
    with pytest.raises(CameraError):
        open_camera(server.url("live.m3u8#open_timeout_ms=300"))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:1/x", "nothing listens at 127.0.0.1:1"),
        ("rtsp://127.0.0.1:1/x", "nothing listens at 127.0.0.1:1"),
        ("http://no.such.host.invalid/x", "no host 'no.such.host.invalid'"),
        ("udp://192.0.2.1:5000", "cannot be opened"),  # an address of another machine
        ("udp://127.0.0.1:{port}#open_timeout_ms=200&read_timeout_ms=100", "no answer within 200 ms"),
    ],
)
def test_nobody_is_there(url, found):
    with pytest.raises(CameraError, match=found):
        open_camera(url.format(port=free_udp_port()))


def test_rtsp_from_a_server_that_speaks_http(serve):
    server = serve({})
    with pytest.raises(CameraError, match="does not send video"):
        open_camera(server.url("x").replace("http", "rtsp"))


def broken_off(server: Callable[[], MjpegServer], rest: str) -> Story:
    """Ten pictures and half of one; then silence, a byte now and then, or the end."""

    def tell(send: Send) -> None:
        steadily([jpeg(9)], count=10)(send)
        whole = part(jpeg(9))
        send(whole[: len(whole) // 2])
        if rest == "stalls":
            server().wait()
        elif rest == "drips":
            for k in range(len(whole) // 2, len(whole)):
                send(whole[k : k + 1])
                time.sleep(0.02)

    return tell


@pytest.mark.parametrize("rest", ["stalls", "drips", "hangs up"])
def test_a_picture_that_does_not_end(serve, rest):
    server = serve({"cam": broken_off(lambda: server, rest)})
    with closing(open_camera(server.url("cam#read_timeout_ms=200&fps=100"), GREY)) as camera:
        images, fault = read_until_fault(camera, PATIENCE_SECONDS)
    assert fault is not None
    assert {(image.shape, int(image.min()), int(image.max())) for image in images} == {((48, 64), 9, 9)}  # whole ones


def test_another_size_goes_on_as_another_picture(serve):
    server = serve({"cam": lambda send: [steadily([jpeg(5, w, h)], count=15)(send) for w, h in ((64, 48), (32, 24))]})
    with closing(open_camera(server.url("cam#fps=100"), GREY)) as camera:
        images, fault = read_until_fault(camera, PATIENCE_SECONDS)
    assert fault is not None
    assert [image.shape for image in (images[0], images[-1])] == [(48, 64), (24, 32)]


def test_a_picture_that_claims_to_be_huge(serve):
    huge = bytearray(jpeg(5))
    at = huge.index(b"\xff\xc0")
    huge[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    stories = {"first": steadily([bytes(huge)]), "later": lambda send: [steadily([jpeg(5)], count=9)(send), tail(send)]}
    tail = steadily([bytes(huge)])
    server = serve(stories)
    with pytest.raises(CameraError):
        open_camera(server.url("first#open_timeout_ms=150"))
    with (
        closing(open_camera(server.url("later#fps=100"), GREY)) as camera,
        pytest.raises(BadPictureError, match="cannot be decoded"),
    ):
        [camera.read(0.2) for _ in range(30)]


def test_arrivals_that_keep_their_pace_are_not_held():
    arrivals = Arrivals(fps=10)
    assert [arrivals.held(0.1 * k) for k in range(40)] == [0.05] + [0.0] * 39


def test_what_a_standstill_held_up_is_held_back():
    arrivals = Arrivals(fps=10)
    for k in range(40):
        arrivals.held(0.1 * k)
    bunch = [arrivals.held(4.4 + 0.001 * k) for k in range(5)]  # 0.5 s, then all at once
    assert bunch == pytest.approx([0.05] * 5, rel=0.35)
    assert arrivals.held(4.5) == 0.0


@pytest.mark.slow
def test_only_the_last_of_a_bunch_is_handed_over(serve):
    def tell(send: Send) -> None:
        steadily([jpeg(10)], fps=25, count=20)(send)
        time.sleep(0.2)
        send(b"".join(part(jpeg(100 + k)) for k in range(8)))
        server.wait()

    server = serve({"cam": tell})
    with closing(open_camera(server.url("cam#fps=25&read_timeout_ms=300"), GREY)) as camera:
        seen = {int(image[0, 0]) for image in read_until_fault(camera, 1.1)[0]}
    assert 10 in seen
    assert 107 in seen
    assert len(seen) <= 4, "pictures that are older than their stamps were handed over"


@pytest.mark.slow
def test_a_recording_is_no_camera(serve, monkeypatch):
    monkeypatch.setattr(network, "BEHIND_SECONDS", 0.05)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320), np.uint8)
    movie = matroska([noise] * 100, "gray")
    server = serve({"movie.mkv": lambda send: (send(movie), server.wait())})
    with closing(open_camera(server.url("movie.mkv"), GREY)) as camera:
        fault = read_until_fault(camera, 1.0)[1]
    assert "faster than this machine decodes" in str(fault)


def test_mpegts_over_udp():
    port = free_udp_port()
    with mpegts_sender(port), closing(open_camera(f"udp://127.0.0.1:{port}#band=nir", GREY)) as camera:
        frames = [camera.read(2.0) for _ in range(3)]
        assert np.abs(frames[-1].image[24:].astype(int) - 100).max() <= 2
        assert (camera.band, camera.fps, frames[-1].image.shape) == ("nir", 50.0, (48, 64))


def test_what_is_lost_on_the_way_is_damage():
    port, lossy = free_udp_port(), free_udp_port()
    with (
        mpegts_sender(port, size=(320, 240)),
        every_but(20, port, lossy),
        closing(open_camera(f"udp://127.0.0.1:{lossy}", GREY)) as camera,
        pytest.raises(BadPictureError),
    ):
        [camera.read(1.0) for _ in range(200)]


@pytest.mark.slow
def test_labels_bear_the_name_without_the_password(serve):
    noise = np.random.default_rng(0).integers(0, 255, (20, 120, 160), np.uint8)
    server = serve({"closed": steadily([encoded(image) for image in noise], fps=30)})
    with stream(model=BUNDLED, camera=server.url("closed", "me:s3cr%3At@")) as labels:
        prediction = next(label for label in labels if label.state not in (LabelState.WARMING, LabelState.STALE))
    assert prediction.source == f"http://***@127.0.0.1:{server.port}/closed"


def test_the_clock_of_the_stream():
    port = free_udp_port()
    with mpegts_sender(port), closing(open_camera(f"udp://127.0.0.1:{port}#clock=device", GREY)) as camera:
        assert camera.clock_kind == "device"
        gaps_ns = np.diff([camera.read(2.0).captured_ns for _ in range(10)])
    assert set(gaps_ns // 20_000_000 * 20_000_000 - gaps_ns) == {0}  # whole periods of the sender


def test_nothing_but_sound():
    port = free_udp_port()
    with mpegts_sender(port, kind="sound"), pytest.raises(CameraError, match="has audio, no pictures"):
        open_camera(f"udp://127.0.0.1:{port}")


def test_it_is_reopened_when_the_server_is_back():
    server = MjpegServer({"cam": steadily([jpeg(k) for k in range(250)])})
    camera = open_camera(server.url("cam#reconnect_max_ms=200"), GREY)
    capture = Capture(camera, camera.timeouts)
    capture.start()
    try:
        assert capture.get(PATIENCE_SECONDS) is not None
        server.stop()
        end = time.monotonic() + PATIENCE_SECONDS
        while capture.trouble is None and time.monotonic() < end:
            capture.get(0.05)
        assert capture.trouble is not None
        server = MjpegServer(server.stories, server.port)
        while (fresh := capture.get(PATIENCE_SECONDS)) is not None and fresh.cut.number == 0:
            pass  # a frame from before
        assert fresh is not None
        assert capture.counters.reconnects == 1
    finally:
        capture.stop()
        server.stop()


@pytest.mark.slow
def test_a_stream_is_left_while_its_server_is_waited_for(serve, monkeypatch):
    asked, timed_out, silent = threading.Event(), [], Connection.silent
    monkeypatch.setattr(Connection, "silent", lambda *given: timed_out.append(given) or silent(*given))
    server = serve({"cam": steadily([jpeg(5)], count=30)})
    camera = open_camera(server.url("cam#fps=100&open_timeout_ms=60000"), GREY)
    capture = Capture(camera, camera.timeouts)
    capture.start()
    server.stories["cam"] = lambda send: (asked.set(), server.wait_for_ever())  # when it is opened again
    while capture.trouble is None:
        capture.get(0.05)
    timed_out.clear()
    assert asked.wait(PATIENCE_SECONDS)
    capture.stop()
    assert not capture._thread.is_alive()
    assert timed_out == []  # it ended because it was told to, not because the server said nothing for a minute
    server.stop()
    camera.close()


def test_no_second_thread_beside_one_that_hangs(monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(connected, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(av, "open", lambda *args, **options: hanging.wait(PATIENCE_SECONDS))
    camera = make_camera("c", camera_config("http://127.0.0.1:1/#open_timeout_ms=100"))
    with pytest.raises(CameraError, match="no answer within 100 ms"):
        camera.open()
    with pytest.raises(CameraError, match="still hangs"):
        camera.open()
    assert sum(thread.name == "kd-edge connection c" for thread in threading.enumerate()) == 1
    hanging.set()
    [thread.join(5.0) for thread in threading.enumerate() if thread.name == "kd-edge connection c"]
    camera.close()
    assert all(thread.name != "kd-edge connection c" for thread in threading.enumerate())


DAY = datetime.timedelta(days=1)
SECRETS = ("s3cr", "hunter2")


@pytest.mark.parametrize(
    "path",
    ["closed", "closed?pwd=hunter2", "user=a&password=hunter2/x", "page?token=hunter2", "mute#open_timeout_ms=200"],
)
def test_a_password_is_shown_nowhere(serve, path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server = serve({})
    for user in ("me:s3cr%3At@", "s3cr@"):
        url = server.url(path, user)
        with pytest.raises(CameraError) as caught:
            open_camera(url)
        error: BaseException | None = caught.value
        said = str(make_camera(url, camera_config(url)).name) + repr(camera_config(url))
        while error is not None:
            said, error = said + str(error) + repr(error), error.__cause__ or error.__context__
        said += caplog.text + "".join(capfd.readouterr())
        assert not any(secret in said for secret in SECRETS), said
        assert "***@127.0.0.1" in said


def test_credentials_are_accepted(serve, monkeypatch):
    server = serve({"closed": steadily([jpeg(4)])})
    open_camera(server.url("closed", "me:s3cr%3At@")).close()
    monkeypatch.setenv("IR_USER", "me:s3cr:t")
    open_camera(server.url("closed#credentials_env=IR_USER")).close()
    monkeypatch.setenv("IR_USER", "me:hunter2")
    with pytest.raises(CameraError, match="refuses the credentials") as caught:
        open_camera(server.url("closed#credentials_env=IR_USER"))
    assert "hunter2" not in str(caught.value)
    monkeypatch.delenv("IR_USER")
    with pytest.raises(CameraError, match=r"\$IR_USER is not set"):
        open_camera(server.url("closed#credentials_env=IR_USER"))


def test_tls_is_verified(tmp_path):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, address = datetime.datetime.now(datetime.timezone.utc), ipaddress.ip_address("127.0.0.1")
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "camera.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "camera.pem", tmp_path / "key.pem")
    server = MjpegServer({"cam": steadily([jpeg(4)])}, tls=context)
    try:
        url = server.url("cam").replace("http", "https")
        open_camera(f"{url}#ca_file={tmp_path / 'camera.pem'}").close()
        with pytest.raises(CameraError, match=r"is not trusted \(self.signed certificate"):
            open_camera(url)
        with pytest.raises(CameraError, match="No such file"):
            open_camera(f"{url}#ca_file={tmp_path / 'none.pem'}")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:hunter#2@host/x", "is not a camera URL"),
        ("http://me:hunter/2@host/x", "is not a camera URL"),
        ("rtsp:/me:hunter2@host", r"without // after it\..*--camera rtsp://\*\*\*@host"),
        ("http://me:hunter2@host:99999/", "is not a camera URL"),
        ("rstp://me:hunter2@host/", "unknown kind"),
        ("me:hunter2@host/", r"'\*\*\*@host/' of unknown kind"),
        ("http://me:hunter2@host/" + "x" * 9000, "at most 8192 characters"),
        ("http://me:hunter2@host/\0", "match pattern"),
        ("http://me:hunter2@host/#brand=nir", r"did you mean 'band'"),
        ("http://me:hunter2@host/#transport=udp", "transport, which no http: camera has"),
        ("http://me:hunter2@host/#width_px=64", "width_px, which no http: camera has"),
        ("rtsp://me:hunter2@host/#clock=wall", "clock = wall"),
        ("rtsp://me:hunter2@host/#transport=carrier", "transport"),
        ("v4l2:/dev/video0?transport=tcp", "with rtsp:"),
    ],
)
def test_mistakes_are_named_without_the_password(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        camera_config(url)
    said = str(caught.value) + repr(caught.value) + str(caught.value.__cause__)
    assert "hunter" not in said
