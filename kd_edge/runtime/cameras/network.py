"""Network cameras through PyAV: RTSP, HTTP (MJPEG and what else FFmpeg plays live) and MPEG-TS over UDP.

FFmpeg's waits end by time-outs of its own, a resolver's do not: so it runs in a thread of its own, and nobody waits for
that thread longer than stated. No message holds the URL: FFmpeg's own errors quote it with its password, so what they
say is told anew here, without them as cause.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np

from kd_edge.artifact import Band
from kd_edge.errors import BadPictureError, CameraError, KdEdgeError, import_extra
from kd_edge.files import expanded
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.bounds import FRAME_PIXELS, check_pixels
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.clock import MONOTONIC, Clock, ClockKind, duration
from kd_edge.types import Frame, Image

OPEN_TIMEOUT_MS = 5000
CLOSE_SECONDS = 0.5
"""A thread that hangs inside FFmpeg for longer than this is left behind; no second one is started beside it."""
USUAL_FPS = 30.0
MOST_FPS = 240.0
"""A stream that claims a higher rate does not know its own."""
END_OF_JPEG = b"\xff\xd9"
PADDING = 4096
"""Senders fill a JPEG up with zeros."""

PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsp,rtsps,rtp,tls,tcp,udp",
    "http": "http,https,tls,tcp,httpproxy",
    "https": "https,tls,tcp,httpproxy",
    "udp": "udp",
}
"""What FFmpeg may open: a playlist or a redirection that a server sends names no file and nothing else."""
FORMATS = "rtsp,mpjpeg,mjpeg,mpegts,matroska,mov,flv,hls,h264,hevc"
CODECS = "h264,hevc,mjpeg,mpeg4,mpeg2video,mpeg1video,vp8,vp9,av1,libdav1d,ffv1,jpegls,jpeg2000,png,rawvideo"
"""Of FFmpeg's hundreds of decoders these are fed with what a server sends."""
_PROBED = {"probesize": "1000000", "analyzeduration": "500000", "fpsprobesize": "0"}
_DECODER = {"flags": "low_delay", "max_pixels": str(FRAME_PIXELS)}


class NetworkCamera:
    """A camera that is reached over the network; see ``Camera``.

    A frame's stamp is the moment its last byte was here, unless the clock is ``device``: then it is the stream's own.
    """

    live = True
    can_vanish = True
    ended = False

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted, *, clock: Clock = MONOTONIC) -> None:
        self.name = name
        self.band: Band | None = config.band
        self.dtype: Dtype | None = None
        self.channels: Channels | None = None
        self.fps: float | None = config.fps
        self.timeouts: TimeOuts = config
        self.clock_kind: ClockKind = "device" if config.clock == "device" else "monotonic"
        self._config, self._wanted, self._clock = config, wanted, clock
        self._open_seconds = (config.open_timeout_ms or OPEN_TIMEOUT_MS) / 1e3
        self._feed: Feed | None = None
        self._count = 0
        import_extra("av", "network")

    def open(self) -> None:
        """Connect and wait for the first picture, which tells dtype and channels."""
        self.close()
        if self._feed is not None:
            raise self._fault("its last connection still hangs", "an answer", "check the network and the name server")
        self._feed = Feed(self.name, self._config, self._clock)
        try:
            first = self._feed.first(self._open_seconds)
        except BaseException:
            self.close()
            raise
        self.fps = self._config.fps or self._feed.fps
        self.dtype = "uint16" if _is_deep_grey(first.frame) else "uint8"
        self.channels = 1 if self._wanted.channels == 1 or _is_grey(first.frame) else 3

    def read(self, timeout_seconds: float) -> Frame | None:
        """The newest picture that was not read yet."""
        if self._feed is None:
            raise self._fault("it is closed", "an open camera", "open it first")
        picture = self._feed.take(timeout_seconds)
        if picture is None:
            return None
        if _is_deep_grey(picture.frame) != (self.dtype == "uint16"):
            raise self._fault(f"its pixels became {picture.frame.format.name}", f"{self.dtype} as before", "reopen it")
        frame = Frame(_image(picture.frame, self.channels), picture.stamp_ns, self._count, self.name)
        self._count += 1
        return frame

    def close(self) -> None:
        """Hang up. A thread that does not end in time is left behind until it does."""
        if self._feed is not None and self._feed.close(CLOSE_SECONDS):
            self._feed = None

    def _fault(self, found: str, expected: str, fix: str) -> CameraError:
        return CameraError(f"camera {self.name}: {found}", expected, fix)


class Picture(NamedTuple):
    """A decoded frame, not yet converted.

    Attributes:
        frame: ``av.VideoFrame``.
        stamp_ns: When it was captured, as far as known.
        due: ``time.monotonic()`` before which a newer one may yet take its place.
    """

    frame: Any
    stamp_ns: int
    due: float


class Arrivals:
    """Tells pictures that were held up on their way from those that come at their pace.

    After a standstill of the network several come at once, and only the last of them is new; a picture that comes too
    early or too late therefore waits for a part of a period whether another one follows.
    """

    COUNT = 16

    def __init__(self, fps: float | None) -> None:
        self._moments: deque[float] = deque(maxlen=self.COUNT)
        self._usual = 1 / (fps or USUAL_FPS)

    def held(self, now: float) -> float:
        """How long the picture that came now should wait, s."""
        self._moments.append(now)
        count = len(self._moments) - 1
        if count == 0:
            return self._usual / 2
        if count == self.COUNT - 1:  # the mean, which a standstill and the bunch behind it do not change
            self._usual = max((now - self._moments[0]) / count, 1 / MOST_FPS)
        gap = now - self._moments[-2]
        return 0.0 if self._usual / 2 <= gap <= 2 * self._usual else self._usual / 2


class Feed:
    """One connection: FFmpeg in a thread of its own, and the newest picture it has given.

    Args:
        name: The camera's.
        config: What the user says about it.
        clock: Stamps what arrives.

    Attributes:
        fps: The rate the stream claims; None where it claims none.
    """

    def __init__(self, name: str, config: CameraConfig, clock: Clock) -> None:
        self.fps: float | None = None
        self._name, self._config, self._clock = name, config, clock
        self._changed = threading.Condition()
        self._picture: Picture | None = None
        self._damage = ""
        self._end: KdEdgeError | None = None
        self._is_connected = False
        self._is_wanted = True
        self._thread = threading.Thread(target=self._run, name=f"kd-edge network {name}", daemon=True)
        self._thread.start()

    def first(self, timeout_seconds: float) -> Picture:
        """Wait for the first picture, which can be taken yet.

        Raises:
            CameraError: None came in time, or none will come.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._picture or self._end, timeout_seconds)
            if self._picture is not None:
                return self._picture
            raise self._end or self._silent(timeout_seconds)

    def take(self, timeout_seconds: float) -> Picture | None:
        """Take the newest picture; None when none came in time.

        Raises:
            BadPictureError: One that is damaged came.
            CameraError: The connection has ended.
        """
        end = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                now, picture = time.monotonic(), self._picture
                if picture is not None and (now >= picture.due or self._end is not None):
                    self._picture = None
                    return picture
                if self._damage:
                    damage, self._damage = self._damage, ""
                    raise BadPictureError(f"camera {self._name}: {damage}", "a whole picture", "check the network")
                if self._end is not None:
                    raise self._end
                if now >= end:
                    return None
                self._changed.wait((min(end, picture.due) if picture is not None else end) - now)

    def close(self, timeout_seconds: float) -> bool:
        """Have the connection ended; whether it is."""
        self._is_wanted = False
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._play()
            end: KdEdgeError = self._fault("the server has ended the stream", "frames", "see what the server says")
        except KdEdgeError as error:
            end = error
        except BaseException as error:  # whatever FFmpeg raises
            end = self._explained(error)
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def _play(self) -> None:
        """Connect, and hand over pictures until the end."""
        av = import_extra("av", "network")
        timeouts = ((self._config.open_timeout_ms or OPEN_TIMEOUT_MS) / 1e3, self._config.read_timeout_ms / 1e3)
        url = _url(self._config, self._name)
        demuxer = "mpegts" if self._config.scheme == "udp" else None
        with av.open(url, format=demuxer, options=_options(self._config), timeout=timeouts) as container:
            stream = self._chosen(container)
            self._is_connected = True
            arrivals = Arrivals(self._config.fps or self.fps)
            for packet in container.demux():  # of sound, too: else a stream of nothing but sound would never return
                arrived_ns, now = self._clock.now_ns(), time.monotonic()
                if not self._is_wanted:
                    return
                if packet.stream is stream:
                    for frame in self._decoded(av, packet):
                        self._hand_over(frame, arrived_ns, now, arrivals)

    def _chosen(self, container: Any) -> Any:
        """The stream of pictures, its decoder bounded."""
        stream = container.streams.best("video")
        if stream is None:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise self._fault(f"the stream holds {kinds}, no pictures", "a video stream", "check the path of the URI")
        decoder = stream.codec_context
        if decoder is None or decoder.name not in CODECS.split(","):
            codec = "an unknown codec" if decoder is None else f"codec {decoder.name}"
            raise self._fault(f"its pictures are in {codec}", f"one of {CODECS}", "set the camera to H.264 or MJPEG")
        try:
            if decoder.width or decoder.height:
                check_pixels(decoder.width, decoder.height)
        except ValueError as error:
            raise self._fault(str(error), "a picture of that size", "set the camera to a lower resolution") from None
        decoder.options = _DECODER
        rate = stream.average_rate  # a stream of single JPEGs knows none: FFmpeg's guess for it means nothing
        self.fps = float(rate) if rate and 0 < rate <= MOST_FPS and container.format.name != "mpjpeg" else None
        return stream

    def _decoded(self, av: Any, packet: Any) -> list[Any]:
        """The whole pictures of a packet; of any other one it is noted what is wrong with it."""
        is_jpeg = packet.stream.codec_context.name == "mjpeg" and packet.size
        if is_jpeg and END_OF_JPEG not in bytes(packet)[-PADDING:]:  # FFmpeg would fill it up with grey
            self._note_damage("a JPEG that is cut short")
            return []
        try:
            frames = packet.decode()
        except (av.error.InvalidDataError, av.error.ArgumentError):
            self._note_damage("a picture that cannot be decoded")
            return []
        whole = [frame for frame in frames if not frame.is_corrupt]
        if len(whole) < len(frames):
            self._note_damage("a picture with parts missing")
        return whole

    def _note_damage(self, what: str) -> None:
        with self._changed:
            self._damage = what
            self._changed.notify_all()

    def _hand_over(self, frame: Any, arrived_ns: int, now: float, arrivals: Arrivals) -> None:
        if self._config.clock != "device":
            picture = Picture(frame, arrived_ns, now + arrivals.held(now))
        elif frame.pts is not None:  # its stamps tell what was held up
            picture = Picture(frame, round(frame.pts * frame.time_base * 1_000_000_000), now)
        else:
            self._note_damage("a picture without a stamp")
            return
        with self._changed:
            self._picture = picture
            self._changed.notify_all()

    def _explained(self, error: BaseException) -> KdEdgeError:
        """What an error of FFmpeg's means; its own text holds the URL, and is left out."""
        kind, parts = type(error).__name__, urlsplit(self._config.uri)
        place = _place(parts.hostname, parts.port)
        if kind in ("HTTPUnauthorizedError", "HTTPForbiddenError"):
            has = "@" in parts.netloc or self._config.credentials_env is not None
            return self._fault(
                f"{place} refuses the credentials" if has else f"{place} wants credentials",
                "a user and a password that may see this stream",
                'credentials_env = "NAME" in a camera file, NAME=user:password in the environment; '
                "or user:password@ before the host in a camera file",
            )
        if kind == "HTTPNotFoundError":
            return self._fault(f"{place} has no such stream (404)", "the path of a stream", "correct the URI's path")
        if kind == "HTTPOtherClientError" and self._config.scheme.startswith("rtsp"):  # nothing to play is left
            return self._fault(f"{place} plays no pictures (only sound, perhaps)", "a video stream", "correct the path")
        if kind in ("ExitError", "TimeoutError"):
            return self._silent(self._config.read_timeout_ms / 1e3)
        if kind == "ConnectionRefusedError":
            return self._fault(f"nobody listens at {place}", "a server", "switch it on; check host and port")
        if not self._is_connected and (unknown := _lookup_fault(parts.hostname)):
            return self._fault(f"no host '{parts.hostname}' ({unknown})", "a host's name or address", "correct the URI")
        said = str(getattr(error, "strerror", None) or kind)
        if self._is_connected:
            return self._fault(f"the connection broke ({said})", "frames", "check the network and the server")
        if kind in ("InvalidDataError", "DemuxerNotFoundError", "EOFError") or getattr(error, "errno", 0) == errno.EIO:
            return self._fault(
                f"what {place} sends is no video ({said})",
                "RTSP, MJPEG, MPEG-TS or what else FFmpeg plays live",
                "open the URI in a browser or player; correct its path",
            )
        return self._fault(f"{place} cannot be opened ({said})", "a stream", "open the URI in a player; correct it")

    def _silent(self, seconds: float) -> CameraError:
        for_so_long = duration(round(seconds * 1e9))
        if self._is_connected:
            return self._fault(f"it sends no picture for {for_so_long}", "frames", "check the network and the server")
        return self._fault(f"no answer within {for_so_long}", "a stream", "check host, port and network")

    def _fault(self, found: str, expected: str, fix: str) -> CameraError:
        return CameraError(f"camera {self._name}: {found}", expected, fix)


def _url(config: CameraConfig, name: str) -> str:
    """The URL with the credentials of the environment, without our keys."""
    url = f"{config.scheme}:{config.target}"
    if config.credentials_env is None:
        return url
    user, colon, password = os.environ.get(config.credentials_env, "").partition(":")
    scheme, _, rest = url.partition("://")
    if not colon or "@" in rest:
        found = "its URI has credentials, too" if colon else f"${config.credentials_env} is not set to user:password"
        raise CameraError(f"camera {name}: {found}", "credentials in one place", "correct it")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def _options(config: CameraConfig) -> dict[str, str]:
    """FFmpeg's options: what may be opened and decoded, how much is looked at before, and what only one scheme has."""
    options = _PROBED | _DECODER
    options |= {"protocol_whitelist": PROTOCOLS[config.scheme], "format_whitelist": FORMATS, "codec_whitelist": CODECS}
    if config.scheme in ("https", "rtsps"):
        ca_file = ssl.get_default_verify_paths().cafile if config.ca_file is None else expanded(config.ca_file)
        options |= {"tls_verify": "1", "ca_file": str(ca_file or "")}
    if config.scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": config.transport or "tcp", "allowed_media_types": "video", "max_delay": "100000"}
    if config.scheme == "udp":
        options |= {"overrun_nonfatal": "1"}
        host = urlsplit(config.uri).hostname
        if host and _is_single(host):  # else it would listen on all of this machine's addresses
            options["localaddr"] = host
    return options


def _is_single(host: str) -> bool:
    """Whether packets to this address go to one machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return True
    return not (address.is_multicast or address.is_unspecified)


def _place(host: str | None, port: int | None) -> str:
    return f"{host or ''}{'' if port is None else f':{port}'}"


def _lookup_fault(host: str | None) -> str:
    """Why a host's name leads nowhere; empty where it does not."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return error.strerror or "unknown"
    return ""


def _is_grey(frame: Any) -> bool:
    return len(frame.format.components) == 1


def _is_deep_grey(frame: Any) -> bool:
    """Grey of more than 8 bits, whose counts are kept as they come."""
    return _is_grey(frame) and frame.format.components[0].bits > 8


def _image(frame: Any, channels: Channels | None) -> Image:
    if _is_deep_grey(frame):
        plane, order = frame.planes[0], ">" if frame.format.is_big_endian else "<"
        rows = np.frombuffer(plane, f"{order}u2").reshape(-1, plane.line_size // 2)
        return rows[: frame.height, : frame.width].astype(np.uint16)
    image: Image = frame.to_ndarray(format="gray" if channels == 1 else "rgb24")
    return image if image.flags.owndata else image.copy()  # a grey frame's is the decoder's own
