#!/usr/bin/env python3
"""Network cameras against real servers: first picture, rate, age, credentials, and how soon labels come after a loss.

    python tools/bench_network.py [--seconds 10] [--gone 4] [--only rtsp] [--install]

RTSP is served by GStreamer, from Debian or Ubuntu packages; ``--install`` installs them (apt-get, as root). MJPEG over
HTTP and MPEG-TS over UDP come from the senders of the tests. Everything is on 127.0.0.1, 640x480 at 30 frames/s;
servers are processes of their own, which are killed, stopped and started again. Prints Markdown tables. The age of a
frame, when the capture thread has handed it over, counts from its arrival; over HTTP from before the sender encodes it.
What is lost counts from the moment the server is ready again; labels take the model's window besides.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kd_edge.types import Frame

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good " + (
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly glib-networking"
)
SYSTEM_PYTHON = "/usr/bin/python3"
CERTIFICATE = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out camera.pem -days 2 -subj /CN=camera " + (
    "-addext subjectAltName=IP:127.0.0.1"
)
LONGEST_SECONDS = 30.0
TARGET_SECONDS = 2.0
BITS, BLOCK = 16, 16
USER, PASSWORD = "operator", "s3cr:t"  # of the server below
PICTURES = (
    "videotestsrc is-live=true pattern=snow ! video/x-raw,width=640,height=480,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max={gop} ! rtph264pay name=pay0 pt=96"
)
SOUND = "audiotestsrc is-live=true ! opusenc ! rtpopuspay name={name} pt=97"


def serve_rtsp(host: str, port: int, is_closed: bool, certificate: str) -> None:
    """GStreamer's RTSP server, run by the system's Python, which may ask for digest credentials or speak TLS."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(host)
    server.set_service(str(port))
    for path, launch in {
        "/ir": PICTURES.format(gop=15),
        "/far": PICTURES.format(gop=120),
        "/both": f"{PICTURES.format(gop=15)} {SOUND.format(name='pay1')}",
        "/sound": SOUND.format(name="pay0"),
    }.items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( {launch} )")
        factory.set_shared(True)
        if is_closed or certificate:
            allowed = GstRtspServer.RTSPPermissions()
            for permission in ("media.factory.access", "media.factory.construct"):
                allowed.add_permission_for_role("user", permission, True)
            factory.set_permissions(allowed)
        server.get_mount_points().add_factory(path, factory)
    if is_closed or certificate:
        door, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        if is_closed:
            door.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            door.add_digest(USER, PASSWORD, token)
        else:
            door.set_tls_certificate(Gio.TlsCertificate.new_from_file(certificate))
            door.set_default_token(token)
        server.set_auth(door)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


def serve_http(host: str, port: int) -> None:
    """Noise, and in its upper left corner when it was sent."""
    import numpy as np

    from tests.runtime.cameras.senders import MjpegServer, Send, encoded, part

    noise = np.random.default_rng(0).integers(0, 255, (30, 480, 640), np.uint8)

    def tell(send: Send) -> None:
        began = time.monotonic()
        for k in range(1_000_000):
            image = noise[k % 30].copy()
            sent_ms = time.monotonic_ns() // 1_000_000
            for bit in range(BITS):
                image[:BLOCK, BLOCK * bit : BLOCK * (bit + 1)] = 255 * (sent_ms >> bit & 1)
            send(part(encoded(image)))
            time.sleep(max(0.0, began + (k + 1) / 30 - time.monotonic()))

    server = MjpegServer({"ir": tell}, port, host=host)
    print("ready", flush=True)
    server.wait_for_ever()


def age_ms(frame: Frame, kind: str) -> float:
    """How old a frame is: from before it was encoded where it says so, else from its arrival."""
    now_ns = time.monotonic_ns()
    if kind != "http":
        return (now_ns - frame.captured_ns) / 1e6
    bits = frame.image[BLOCK // 2, BLOCK // 2 : BLOCK * BITS : BLOCK] > 127
    sent_ms = sum(int(bit) << k for k, bit in enumerate(bits))
    return (now_ns / 1e6 - sent_ms) % (1 << BITS)


def send_udp(host: str, port: int) -> None:
    from tests.runtime.cameras.senders import mpegts_sender

    with mpegts_sender(port, fps=30, size=(640, 480), host=host):
        print("ready", flush=True)
        signal.pause()


SET_LINK = ("ip", "link", "set")


class Way:
    """From the server to the camera: this machine's own loopback, which no one can unplug."""

    server = client = "127.0.0.1"
    inside: tuple[str, ...] = ()

    def plugged(self, is_plugged: bool) -> None:
        raise NotImplementedError


LOOPBACK = Way()


class Cable(Way):
    """A network of its own for the server, and a cable to it; needs root.

    Args:
        end: Which end is pulled: ``server``, and the camera's packets vanish; or ``client``.
    """

    server, client = "10.77.0.2", "10.77.0.1"
    inside = ("ip", "netns", "exec", "kd-edge-ci")

    def __init__(self, end: str) -> None:
        self._end = [*self.inside, *SET_LINK, "kdedge1"] if end == "server" else [*SET_LINK, "kdedge0"]

    def __enter__(self) -> Cable:
        for line in (
            "ip netns add kd-edge-ci",
            "ip link add kdedge0 type veth peer name kdedge1 netns kd-edge-ci",
            f"ip addr add {self.client}/24 dev kdedge0",
            "ip link set kdedge0 up",
            f"ip netns exec kd-edge-ci ip addr add {self.server}/24 dev kdedge1",
            "ip netns exec kd-edge-ci ip link set kdedge1 up",
        ):
            subprocess.run(line.split(), check=True)
        return self

    def __exit__(self, *_: object) -> None:
        for line in ("ip link del kdedge0", "ip netns del kd-edge-ci"):
            subprocess.run(line.split(), check=True)

    def plugged(self, is_plugged: bool) -> None:
        subprocess.run([*self._end, "up" if is_plugged else "down"], check=True)


@contextmanager
def running(kind: str, port: int, way: Way = LOOPBACK, certificate: str = "") -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, once it is ready."""
    python = SYSTEM_PYTHON if kind.startswith("rtsp") else sys.executable
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    host = way.client if kind == "udp" else way.server
    command = [*way.inside, python, __file__, "--serve", kind, "--host", host, "--port", str(port)]
    if certificate:
        command += ["--certificate", certificate]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or process.stdout.readline().strip() != "ready":
            sys.exit(f"the {kind} server does not start; --install installs what it needs: {PACKAGES}")
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * len(values)))]


def flow(kind: str, url: str, seconds: float) -> str:
    """First picture, rate and age of frames when the capture thread hands them over."""
    from kd_edge.runtime.cameras import Wanted, open_camera, timeouts_of
    from kd_edge.runtime.capture import Capture

    began = time.monotonic()
    camera = open_camera(url, Wanted(None, "uint8", 1))
    first = time.monotonic() - began
    capture, ages, stamps = Capture(camera, timeouts_of(camera)), [], []
    capture.start()
    end = time.monotonic() + seconds + 1
    while time.monotonic() < end:
        captured = capture.get(1.0)
        if captured is not None and time.monotonic() > end - seconds:
            stamps.append(captured.frame.captured_ns)
            ages.append(age_ms(captured.frame, kind))
    capture.stop()
    rate = (len(stamps) - 1) / (stamps[-1] - stamps[0]) * 1e9
    middle, high = percentile(ages, 0.5), percentile(ages, 0.99)
    return f"{first:.2f} s | {rate:.1f} | {capture.counters.dropped} | {middle:.1f} ms | {high:.1f} ms"


Server = subprocess.Popen[str]
Start = Callable[[], object]
Loss = Callable[[Server, Start, Way], None]


def killed(server: Server, start: Start, way: Way) -> None:
    """The server's machine is switched off and on again."""
    server.kill()
    server.wait()
    time.sleep(chosen.gone)
    start()


def restarted(server: Server, start: Start, way: Way) -> None:
    """The server is restarted at once."""
    server.kill()
    server.wait()
    start()


def hangs(server: Server, start: Start, way: Way) -> None:
    """The server hangs, its connections open, and goes on."""
    server.send_signal(signal.SIGSTOP)
    time.sleep(chosen.gone)
    server.send_signal(signal.SIGCONT)


def unplugged(server: Server, start: Start, way: Way) -> None:
    """The cable is pulled, and plugged in again."""
    way.plugged(False)
    time.sleep(chosen.gone)
    way.plugged(True)


def after(loss: Loss, kind: str, form: str, way: Way) -> tuple[float, float]:
    """Seconds from the server's return to the first frame, and to the first label that may be acted on."""
    from threading import Thread

    from kd_edge.artifact import BUNDLED
    from kd_edge.runtime import stream
    from kd_edge.types import LabelState

    back: list[float] = []
    with ExitStack() as servers:
        port = free_port()

        def start() -> Server:
            return servers.enter_context(running(kind, port, way))

        server = start()

        def lose() -> None:
            loss(server, start, way)
            back.append(time.monotonic())

        frame = label = 0.0
        with stream(model=BUNDLED, camera=form.format(server=way.server, client=way.client, port=port)) as labels:
            losing = Thread(target=lose)
            for prediction in labels:
                now = time.monotonic()
                if losing.ident is None:
                    if prediction.state not in (LabelState.WARMING, LabelState.STALE):
                        losing.start()
                elif back and prediction.state is not LabelState.STALE and prediction.captured_ns / 1e9 > back[0]:
                    frame = frame or now
                    if prediction.state is not LabelState.WARMING:
                        label = now
                if label or (back and now - back[0] > LONGEST_SECONDS):
                    break
            losing.join()
    never = float("inf")
    return (frame - back[0] if frame else never), (label - back[0] if label else never)


CAMERAS = {
    "rtsp over tcp": ("rtsp", "rtsp://{server}:{port}/ir"),
    "rtsp over udp": ("rtsp", "rtsp://{server}:{port}/ir#transport=udp"),
    "rtsp, a key frame every 4 s": ("rtsp", "rtsp://{server}:{port}/far"),
    "rtsp with sound": ("rtsp", "rtsp://{server}:{port}/both"),
    "http mjpeg": ("http", "http://{server}:{port}/ir"),
    "udp mpeg-ts": ("udp", "udp://{client}:{port}"),
}
LOST = ("rtsp over tcp", "rtsp over udp", "http mjpeg", "udp mpeg-ts")


def refusals() -> Iterator[str]:
    """What is said of credentials that are refused and of a stream of sound."""
    from kd_edge.errors import CameraError
    from kd_edge.runtime.cameras import open_camera

    def said(url: str) -> str:
        try:
            with closing(open_camera(url)) as camera:
                frame = camera.read(2.0)
                return "no frame" if frame is None else f"frames of {frame.image.shape}"
        except CameraError as error:
            return error.found

    with ExitStack() as servers:
        folder = servers.enter_context(TemporaryDirectory())
        subprocess.run(["openssl", *CERTIFICATE.split()], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        both = Path(folder, "both.pem")
        both.write_text(Path(folder, "key.pem").read_text() + Path(folder, "camera.pem").read_text())
        open_port, closed_port, tls_port = free_port(), free_port(), free_port()
        servers.enter_context(running("rtsp", tls_port, certificate=str(both)))
        servers.enter_context(running("rtsp", open_port))
        servers.enter_context(running("rtsp-digest", closed_port))
        os.environ["OPERATOR"] = f"{USER}:{PASSWORD}"
        for what, url in {
            "only sound": f"rtsp://127.0.0.1:{open_port}/sound",
            "no such path": f"rtsp://127.0.0.1:{open_port}/nothing",
            "digest, no credentials": f"rtsp://127.0.0.1:{closed_port}/ir",
            "digest, wrong password": f"rtsp://{USER}:wr0ng@127.0.0.1:{closed_port}/ir",
            "digest, right password": f"rtsp://{USER}:{PASSWORD.replace(':', '%3A')}@127.0.0.1:{closed_port}/ir",
            "digest, of the environment": f"rtsp://127.0.0.1:{closed_port}/ir#credentials_env=OPERATOR",
            "TLS, certificate not known": f"rtsps://127.0.0.1:{tls_port}/ir",
            "TLS, its certificate as ca_file": f"rtsps://127.0.0.1:{tls_port}/ir#ca_file={folder}/camera.pem",
        }.items():
            answer = said(url)
            if "wr0ng" in answer or PASSWORD in answer:
                sys.exit("a password was shown")
            yield f"| {what} | {answer.replace('|', '/')} |"


def report(seconds: float, only: str) -> bool:
    """Print the tables; whether every return was noticed in time."""
    chosen = {name: camera for name, camera in CAMERAS.items() if only in name}
    print("| camera | first picture | frames/s | dropped | age, median | age, p99 |\n|---|---|---|---|---|---|")
    for name, (kind, form) in chosen.items():
        port = free_port()
        with running(kind, port):
            print(
                f"| {name} | {flow(kind, form.format(server=Way.server, client=Way.client, port=port), seconds)} |",
                flush=True,
            )
    print("\n| camera | lost by | frames again after | labels again after |\n|---|---|---|---|")
    in_time = True
    for name in (name for name in LOST if name in chosen):
        for loss in (killed, restarted, hangs, unplugged):
            if loss is unplugged and os.geteuid() != 0:
                print(f"| {name} | unplugged | not run: needs root | |")
                continue
            cable = Cable("client" if name.startswith("udp") else "server")  # else its sender would fail
            with cable if loss is unplugged else nullcontext(LOOPBACK) as way:
                frame, label = after(loss, *CAMERAS[name], way)
            in_time = in_time and frame <= TARGET_SECONDS
            print(f"| {name} | {loss.__name__} | {frame:.2f} s | {label:.2f} s |", flush=True)
    if any(name.startswith("rtsp") for name in chosen):
        print("\n| stream | kd-edge says |\n|---|---|")
        for row in refusals():
            print(row, flush=True)
    return in_time


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each camera is watched")
    parser.add_argument("--gone", type=float, default=4.0, help="how long servers and cables are gone")
    parser.add_argument("--only", default="", help="cameras whose name holds this")
    parser.add_argument("--install", action="store_true", help="install GStreamer's RTSP server before")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    serving = {
        "rtsp": lambda: serve_rtsp(chosen.host, chosen.port, False, chosen.certificate),
        "rtsp-digest": lambda: serve_rtsp(chosen.host, chosen.port, True, ""),
        "http": lambda: serve_http(chosen.host, chosen.port),
        "udp": lambda: send_udp(chosen.host, chosen.port),
    }
    if chosen.serve:
        serving[chosen.serve]()
        return
    if chosen.install:
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES.split()], check=True)
    sys.exit(0 if report(chosen.seconds, chosen.only) else 1)


if __name__ == "__main__":
    chosen = options()
    main()
