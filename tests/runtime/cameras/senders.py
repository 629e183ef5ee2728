"""Senders on loopback: an MJPEG server that can be told to misbehave, and MPEG-TS over UDP."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import cv2
import numpy as np

PART = "multipart/x-mixed-replace; boundary=frame"
TYPES = {"mkv": "video/x-matroska", "m3u8": "application/vnd.apple.mpegurl"}
USER = "Basic " + base64.b64encode(b"me:s3cr:t").decode()


def jpeg(grey: int, width: int = 64, height: int = 48, *, colour: bool = True) -> bytes:
    """A JPEG of one grey value, in colour as most cameras send it, or not."""
    return encoded(np.full((height, width, 3) if colour else (height, width), grey, np.uint8))


def encoded(image: np.ndarray) -> bytes:
    """An image as JPEG."""
    return bytes(cv2.imencode(".jpg", image)[1])


def part(picture: bytes) -> bytes:
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture)


Send = Callable[[bytes], None]
Story = Callable[[Send], None]
"""What a server sends to one who asks; when it returns, the server hangs up."""


def steadily(pictures: list[bytes], fps: float = 100.0, count: int = 1_000_000) -> Story:
    """Pictures in turn."""

    def tell(send: Send) -> None:
        began = time.monotonic()
        for k in range(count):
            send(part(pictures[k % len(pictures)]))
            time.sleep(max(0.0, began + (k + 1) / fps - time.monotonic()))

    return tell


class MjpegServer(ThreadingHTTPServer):
    """Tells a story per path; unknown ones are not found. ``wait`` ends at once when it is closed."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, stories: dict[str, Story], port: int = 0, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.stories, self.ended, self.connections = stories, threading.Event(), []
        super().__init__((host, port), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}/{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is none of the test's business."""

    def wait(self) -> None:
        """As if it hung."""
        self.ended.wait(30)

    def wait_for_ever(self) -> None:
        self._thread.join()

    def stop(self) -> None:
        """As if it were killed: connections end."""
        self.ended.set()
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with connection:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: MjpegServer

    def setup(self) -> None:
        self.server.connections.append(self.request)
        super().setup()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _send(self, data: bytes) -> None:
        if self.server.ended.is_set():
            raise ConnectionAbortedError
        self.wfile.write(data)
        self.wfile.flush()

    def do_GET(self) -> None:
        path = self.path.strip("/").partition("?")[0]
        try:
            if path == "closed" and self.headers.get("Authorization") != USER:
                self._answer(401, "WWW-Authenticate", 'Basic realm="camera"')
            elif path == "forbidden":
                self._answer(403)
            elif path == "page":
                self._answer(200, "Content-Type", "text/html")
                self._send(b"<html><body>A camera</body></html>" * 50)
            elif path == "elsewhere":
                self._answer(302, "Location", "file:///etc/hostname")
            elif path == "mute":
                self.server.wait()
            elif path in self.server.stories:
                self._answer(200, "Content-Type", TYPES.get(path.rpartition(".")[2], PART))
                self.server.stories[path](self._send)
            else:
                self._answer(404)
        except OSError:
            self.close_connection = True

    def _answer(self, code: int, *header: str) -> None:
        self.send_response(code)
        if header:
            self.send_header(*header)
        self.end_headers()


@contextmanager
def mjpeg_server(stories: dict[str, Story]) -> Iterator[MjpegServer]:
    server = MjpegServer(stories)
    try:
        yield server
    finally:
        server.stop()


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def picture(k: int, size: tuple[int, int]) -> av.VideoFrame:
    """Grey value 100, above it other ones in turn: else the picture would be frozen."""
    image = np.full(size[::-1], 100, np.uint8)
    image[: size[1] // 3] = 3 * k % 200
    frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p")
    frame.pts = k
    return frame


def silence(k: int) -> av.AudioFrame:
    frame = av.AudioFrame(format="s16", layout="mono", samples=1152)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate, frame.pts = 48000, 1152 * k
    return frame


@contextmanager
def mpegts_sender(
    port: int, *, kind: str = "video", fps: int = 50, size: tuple[int, int] = (64, 48), host: str = "127.0.0.1"
) -> Iterator[None]:
    """MPEG-TS to a UDP port: pictures, or nothing but sound."""
    ended = threading.Event()

    def send() -> None:
        began = time.monotonic()
        with av.open(f"udp://{host}:{port}?pkt_size=1316", "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=fps) if kind == "video" else container.add_stream("mp2")
            if kind == "video":
                stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = *size, "yuv420p", 5
            for k in range(1_000_000):
                container.mux(stream.encode(picture(k, size) if kind == "video" else silence(k)))
                if ended.wait(max(0.0, began + (k + 1) / fps - time.monotonic())):
                    return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def every_but(nth: int, port: int, onward: int) -> Iterator[None]:
    """Pass on what comes to one UDP port to another one, but for every ``nth`` packet."""
    ended = threading.Event()

    def relay() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relayed:
            relayed.bind(("127.0.0.1", port))
            relayed.settimeout(0.05)
            count = 0
            while not ended.is_set():
                try:
                    packet = relayed.recv(65536)
                except TimeoutError:
                    continue
                count += 1
                if count % nth:
                    relayed.sendto(packet, ("127.0.0.1", onward))

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
