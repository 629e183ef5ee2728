"""Network cameras through PyAV: RTSP, HTTP (MJPEG and other formats that FFmpeg plays live) and MPEG-TS over UDP.

FFmpeg's waits have time-outs, but a resolver's do not, so it runs in its own thread, and no caller waits for that
thread longer than stated. No message contains the URL: FFmpeg's own errors quote it with its password, so they are
reworded here and not chained as causes.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from kd_edge.data.readers.bounds import FRAME_PIXELS, check_pixels
from kd_edge.errors import BadPictureError, CameraError, KdEdgeError, reason
from kd_edge.files import expanded
from kd_edge.packages import import_extra
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.colour import Greying
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.cameras.connected import ConnectedCamera, ErrorTexts
from kd_edge.runtime.cameras.connection import MOST_FPS, Arrivals, Connection, Picture
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.types import Image

END_OF_JPEG = b"\xff\xd9"
PADDING = 4096
"""Senders pad a JPEG with zeros."""

PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsp,rtsps,rtp,tls,tcp,udp",
    "http": "http,https,tls,tcp,httpproxy",
    "https": "https,tls,tcp,httpproxy",
    "udp": "udp",
}
"""Protocols FFmpeg may use, so that a playlist or redirection from a server cannot open files or anything else."""
FORMATS = "rtsp,mpjpeg,mjpeg,mpegts,matroska,mov,flv,hls,h264,hevc"
CODECS = "h264,hevc,mjpeg,mpeg4,mpeg2video,mpeg1video,vp8,vp9,av1,libdav1d,ffv1,jpegls,jpeg2000,png,rawvideo"
"""The only ones of FFmpeg's hundreds of decoders that receive data from a server."""
ALONE = ("mjpeg", "jpegls", "jpeg2000", "png", "rawvideo")
"""Codecs whose packets are independent pictures."""
OVER_TLS = {"https": 443, "rtsps": 322}
TLS_SECONDS = 2.0
WAITED_SECONDS = 0.001
"""A packet that takes longer to arrive was not buffered."""
BEHIND_SECONDS = 2.0
SLOWER = "set the camera to fewer pictures, a lower resolution or MJPEG; a recording is no camera (replay:)"
_PROBED = {"probesize": "1000000", "analyzeduration": "500000", "fpsprobesize": "0"}
_DECODER = {"flags": "low_delay", "max_pixels": str(FRAME_PIXELS)}


class NetworkCamera(ConnectedCamera):
    """A camera on the network; see ``Camera``.

    A frame's stamp is the arrival time of its last byte or, if the clock is ``device``, the stream's own stamp.
    """

    texts = ErrorTexts(
        hangs="its last connection still hangs",
        expected="an answer",
        fix="check network and name server",
        ended="the server has ended the stream",
        advice="check host, port and network, and the server's log",
    )

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted, *, clock: Clock = MONOTONIC) -> None:
        super().__init__(name, config, wanted, clock=clock)
        self.clock_kind = "device" if config.clock == "device" else "monotonic"
        self._av: Any = import_extra("av", "network")
        self._greying = Greying(name, wanted)

    def _whole(self, content: Any) -> Any:
        return content()

    def _kind(self, first: Any) -> tuple[Dtype, Channels]:
        is_grey = self._wanted.channels == 1 or _is_grey(first)
        return "uint16" if _is_deep_grey(first) else "uint8", 1 if is_grey else 3

    def _image(self, connection: Connection, content: Any) -> Image:
        decoded = content()
        if _is_deep_grey(decoded) != (self.dtype == "uint16"):
            raise connection.fault(f"its pixels became {decoded.format.name}", f"{self.dtype} as before", "reopen it")
        if self._greying.is_due and not _is_grey(decoded):
            self._greying.see(decoded.to_ndarray(format="rgb24"))
        return _image(decoded, self.channels)

    def _play(self, connection: Connection) -> None:
        """Connect and hand over pictures until the end."""
        url, timeouts = _url(self._config, self.name), (self._open_seconds, self._config.read_timeout_ms / 1e3)
        demuxer = "mpegts" if self._config.scheme == "udp" else None
        with self._av.open(url, format=demuxer, options=_options(self._config), timeout=timeouts) as container:
            stream = _chosen(container, connection)
            connection.connected(_claimed_fps(container, stream))
            arrivals = Arrivals(self._config.fps or connection.fps)
            asked = waited = time.monotonic()
            for packet in container.demux():  # includes audio: otherwise an audio-only stream would never return
                arrived_ns, now = self._clock.now_ns(), time.monotonic()
                if not connection.is_wanted:
                    return
                waited = now if now - asked > WAITED_SECONDS else waited
                if now - waited > BEHIND_SECONDS:  # the packets are older than they seem, by an unknown time
                    raise connection.fault(
                        "pictures come faster than this machine decodes them", "a live stream", SLOWER
                    )
                if packet.stream is stream:
                    for decode, pts in self._pictures(packet, stream.codec_context, connection):
                        if self._config.clock != "device":
                            connection.hand_over(Picture(decode, arrived_ns, now + arrivals.held(now)))
                        elif pts is not None:  # the stream's stamps show the delay themselves
                            connection.hand_over(Picture(decode, round(pts * packet.time_base * 1_000_000_000), now))
                asked = time.monotonic()

    def _pictures(
        self, packet: Any, decoder: Any, connection: Connection
    ) -> list[tuple[Callable[[], Any], int | None]]:
        """Return a decoding function and a stamp for each picture of a packet.

        Independent pictures are decoded only when they are taken, so skipped ones cost nothing.
        """
        if packet.size and decoder.name in ALONE:
            return [(partial(self._alone, packet, decoder), packet.pts)]
        try:
            return [(partial(_same, frame), frame.pts) for frame in self._decoded(packet, decoder)]
        except BadPictureError as error:
            connection.note_damage(error)
            return []

    def _alone(self, packet: Any, decoder: Any) -> Any:
        """Decode a packet that is one independent picture."""
        if decoder.name == "mjpeg" and END_OF_JPEG not in bytes(packet)[-PADDING:]:  # FFmpeg would pad it with grey
            raise self._damaged("a truncated JPEG")
        frames = self._decoded(packet, decoder)
        if not frames:
            raise self._damaged("a packet without a picture")
        return frames[-1]

    def _decoded(self, packet: Any, decoder: Any) -> list[Any]:
        try:
            frames: list[Any] = decoder.decode(packet)
        except ValueError as error:  # FFmpeg's, for damaged data and data the codec does not accept
            raise self._damaged("a picture that cannot be decoded") from error
        if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
            raise self._damaged("a picture with parts missing")
        return frames

    def _damaged(self, found: str) -> BadPictureError:
        return BadPictureError(f"camera {self.name}: {found}", "a complete picture", "check the network")

    def _explained(self, connection: Connection, error: BaseException) -> KdEdgeError:
        """Translate an FFmpeg error; its own text, which contains the URL, is left out."""
        kind, parts = type(error).__name__, urlsplit(self._config.uri)
        place = _place(parts.hostname, parts.port)
        if kind in ("HTTPUnauthorizedError", "HTTPForbiddenError"):
            has_credentials = "@" in parts.netloc or self._config.credentials_env is not None
            return connection.fault(
                f"{place} refuses the credentials" if has_credentials else f"{place} requires credentials",
                "a user and a password with access to this stream",
                'credentials_env = "NAME" in a camera file, NAME=user:password in the environment; '
                "or user:password@ before the host in a camera file",
            )
        if kind == "HTTPNotFoundError":
            return connection.fault(
                f"{place} has no such stream (404)", "the path of a stream", "correct the URI's path"
            )
        if kind == "HTTPOtherClientError" and self._config.scheme.startswith("rtsp"):  # nothing to play is left
            return connection.fault(
                f"{place} plays no pictures (only sound, perhaps)", "a video stream", "correct the path"
            )
        if kind in ("ExitError", "TimeoutError"):
            return connection.silent(
                self._config.read_timeout_ms / 1e3 if connection.is_connected else self._open_seconds
            )
        if kind == "ConnectionRefusedError":
            return connection.fault(f"nothing listens at {place}", "a server", "switch it on; check host and port")
        if not connection.is_connected and (unknown := _lookup_fault(parts.hostname)):
            return connection.fault(
                f"no host '{parts.hostname}' ({unknown})", "a host's name or address", "correct the URI"
            )
        if not connection.is_connected and (untrusted := _tls_fault(self._config)):
            return connection.fault(
                f"the certificate of {place} is not trusted ({untrusted})",
                "one that this machine's authorities or ca_file vouch for",
                f'ca_file = "camera.pem"; openssl s_client -connect {place} </dev/null | openssl x509 > camera.pem',
            )
        text = str(getattr(error, "strerror", None) or kind)
        if connection.is_connected:
            return connection.fault(f"the connection broke ({text})", "frames", "check the network and the server")
        if kind in ("InvalidDataError", "DemuxerNotFoundError", "EOFError") or getattr(error, "errno", 0) == errno.EIO:
            return connection.fault(
                f"{place} does not send video ({text})",
                "RTSP, MJPEG, MPEG-TS or another format that FFmpeg plays live",
                "open the URI in a browser or player; correct its path",
            )
        return connection.fault(
            f"{place} cannot be opened ({text})", "a stream", "open the URI in a player; correct it"
        )


def _chosen(container: Any, connection: Connection) -> Any:
    """Select the video stream and limit its decoder."""
    stream = container.streams.best("video")
    if stream is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise connection.fault(f"the stream has {kinds}, no pictures", "a video stream", "check the path of the URI")
    decoder = stream.codec_context
    if decoder is None or decoder.name not in CODECS.split(","):
        codec = "an unknown codec" if decoder is None else f"codec {decoder.name}"
        raise connection.fault(f"its pictures are in {codec}", f"one of {CODECS}", "set the camera to H.264 or MJPEG")
    try:
        if decoder.width or decoder.height:
            check_pixels(decoder.width, decoder.height)
    except ValueError as error:
        raise connection.fault(str(error), "a picture of that size", "set the camera to a lower resolution") from None
    decoder.options = _DECODER
    return stream


def _claimed_fps(container: Any, stream: Any) -> float | None:
    """The rate a stream claims; for single JPEGs it is only a guess of FFmpeg's and ignored."""
    rate = stream.average_rate
    return float(rate) if rate and 0 < rate <= MOST_FPS and container.format.name != "mpjpeg" else None


def _url(config: CameraConfig, name: str) -> str:
    """Return the URL with the credentials from the environment, without our keys."""
    url = f"{config.scheme}:{config.target}"
    if config.credentials_env is None:
        return url
    variable = config.credentials_env
    user, colon, password = os.environ.get(variable, "").partition(":")
    scheme, _, rest = url.partition("://")
    if not colon:
        found = "has no colon in it" if variable in os.environ else "is not set"
        raise CameraError(f"camera {name}: ${variable} {found}", "user:password", f"export {variable}=user:password")
    if "@" in rest:
        found = f"both its URI and ${variable} have credentials"
        raise CameraError(f"camera {name}: {found}", "credentials in one place", "take them out of the URI")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def _options(config: CameraConfig) -> dict[str, str]:
    """Return FFmpeg's options: allowed protocols, formats and codecs, probing limits, options of the scheme."""
    options = _PROBED | _DECODER
    options |= {"protocol_whitelist": PROTOCOLS[config.scheme], "format_whitelist": FORMATS, "codec_whitelist": CODECS}
    if config.scheme in OVER_TLS:
        options |= {"tls_verify": "1", "ca_file": _ca_file(config) or ""}
    if config.scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": config.transport or "tcp", "allowed_media_types": "video", "max_delay": "100000"}
    if config.scheme == "udp":
        options |= {"overrun_nonfatal": "1"}
        host = urlsplit(config.uri).hostname
        if host and _is_single(host):  # otherwise it would listen on all of this machine's addresses
            options["localaddr"] = host
    return options


def _is_single(host: str) -> bool:
    """Whether packets to this address go to a single machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return True
    return not (address.is_multicast or address.is_unspecified)


def _place(host: str | None, port: int | None) -> str:
    return f"{host or ''}{'' if port is None else f':{port}'}"


def _lookup_fault(host: str | None) -> str:
    """Return why a host name cannot be resolved; empty if it can."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return error.strerror or "unknown"
    return ""


def _same(frame: Any) -> Any:
    return frame


def _ca_file(config: CameraConfig) -> str | None:
    return str(expanded(config.ca_file)) if config.ca_file is not None else ssl.get_default_verify_paths().cafile


def _tls_fault(config: CameraConfig) -> str:
    """Return why a server's certificate is not trusted; empty if it is. Reconnects, as FFmpeg does not report it."""
    parts = urlsplit(config.uri)
    port = OVER_TLS.get(config.scheme)
    if port is None or parts.hostname is None:
        return ""
    try:
        context = ssl.create_default_context(cafile=_ca_file(config))
        with (
            socket.create_connection((parts.hostname, parts.port or port), timeout=TLS_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError as error:  # also a missing ca_file
        return reason(error)


def _is_grey(frame: Any) -> bool:
    return len(frame.format.components) == 1


def _is_deep_grey(frame: Any) -> bool:
    """Whether a frame is grey with more than 8 bits; its counts are kept unchanged."""
    return _is_grey(frame) and frame.format.components[0].bits > 8


def _image(frame: Any, channels: Channels | None) -> Image:
    if _is_deep_grey(frame):
        plane, order = frame.planes[0], ">" if frame.format.is_big_endian else "<"
        rows = np.frombuffer(plane, f"{order}u2").reshape(-1, plane.line_size // 2)
        return rows[: frame.height, : frame.width].astype(np.uint16)
    image: Image = frame.to_ndarray(format="gray" if channels == 1 else "rgb24")
    return image if image.flags.owndata else image.copy()  # a grey frame's array is the decoder's buffer
