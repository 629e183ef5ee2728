"""Camera configuration: a name (``runtime/cameras/NAME.toml``) or a URI, as one validated model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from kd_edge import recipes
from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.runtime.cameras.kindless import TOPIC_NAME, Meant, host_meant, meant
from kd_edge.runtime.clock import MAX_AHEAD_MS, ClockKind
from kd_edge.runtime.uri import NETWORK, PIPELINE, TOPIC, forms, parse, shown

SCHEMES = ("replay", "synthetic", "v4l2", "realsense", *NETWORK, PIPELINE, TOPIC)
_NAMED = re.compile(r"(\w[\w.-]{0,63})=(.+)", re.DOTALL)
_BYTES = re.compile("[\udc80-\udcff]")
_REALSENSE_KEYS = ("index", "emitter", "exposure_us", "gain")
OWN_KEYS: dict[str, tuple[str, ...]] = {
    "replay": ("topic",),
    "synthetic": ("width_px", "height_px"),
    "v4l2": ("pixel_format", "width_px", "height_px", "clock", "telemetry_rows"),
    "realsense": ("pixel_format", "width_px", "height_px", *_REALSENSE_KEYS),
    "rtsp": ("clock", "open_timeout_ms", "credentials_env", "transport"),
    "rtsps": ("clock", "open_timeout_ms", "credentials_env", "transport", "ca_file"),
    "http": ("clock", "open_timeout_ms", "credentials_env"),
    "https": ("clock", "open_timeout_ms", "credentials_env", "ca_file"),
    "udp": ("clock", "open_timeout_ms"),
    PIPELINE: ("open_timeout_ms",),
    TOPIC: ("clock", "open_timeout_ms", "reliability", "durability", "depth", "compressed", "domain"),
}
"""Keys specific to each kind of camera; the other kinds refuse them, because they would have no effect."""
_DEVICE_KEYS = tuple(dict.fromkeys(key for own in OWN_KEYS.values() for key in own))
_NETWORK_CLOCKS = {
    "arrival": "arrival time of a frame",
    "device": "the stream's own stamps",
}
_TOPIC_CLOCKS = {
    "wall": "headers have this machine's time of day, as usual in ROS",
    "device": "any clock that counts nanoseconds",
    "arrival": "no usable stamps",
}


class TimeOuts(BaseModel):
    """Time limits of a stream for a camera; a custom camera may set its own as its attribute ``timeouts``.

    Attributes:
        read_timeout_ms: A camera without a frame for this long is considered gone and reopened.
        reconnect_max_ms: Longest pause between two attempts to reopen.
        frozen_ms: A camera that repeats one picture for this long is considered hung; its frames no longer count.
        max_ahead_ms: How far a frame's stamp may lie in the future; a frame further ahead is from another clock and
            dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    read_timeout_ms: int = Field(default=1000, ge=50, le=60_000)
    reconnect_max_ms: int = Field(default=1500, ge=100, le=60_000)
    frozen_ms: int = Field(default=2000, ge=100, le=60_000)
    max_ahead_ms: int = Field(default=round(MAX_AHEAD_MS), ge=0, le=60_000)


def _of_any_bytes(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Validate a string that may contain undecodable bytes of a file name, which pydantic does not accept."""
    is_text = not isinstance(value, str) or value.isascii()
    return check(value) if is_text else check(_BYTES.sub("?", str(value))) and value


class CameraConfig(TimeOuts):
    """One camera, with its time-outs.

    Attributes:
        clock: Clock of the camera's stamps: ``monotonic`` (this machine's, which V4L2 drivers use), ``wall`` (its time
            of day), ``device`` (any clock that counts nanoseconds) or ``arrival`` (no usable stamps; the time of
            reading is used). The default of a ``ros2:`` topic is ``wall``.
        uri: ``v4l2:/dev/video0`` or the bare name of a link below ``/dev/v4l``, ``realsense:SERIAL``, ``replay:PATH``
            or ``synthetic:``; the part after ``?`` sets the other keys (``v4l2:/dev/video0?pixel_format=Y16&fps=9``).
            Or a URL, ``rtsp://HOST/PATH``, ``http://``, ``udp://:PORT``: its query belongs to the server, and the part
            after ``#`` sets the other keys (``rtsp://HOST/PATH?channel=1#transport=udp&band=nir``). Or
            ``gstreamer:PIPELINE``, without other keys. Or ``ros2:/TOPIC``, images of ROS 2. It may contain a password
            and is never shown.
        band: Spectral band; a model for another band is refused. None: unknown, not checked.
        hfov_deg: Horizontal field of view in degrees; needed by a model whose crop is in metres. None: the device's
            value if it has one, otherwise that of the model's training.
        fps: Frame rate to request, or rate of a recording without stamps, 1/s. None: the camera's own.
        width_px: Frame width to request. None: the camera's own.
        height_px: Frame height to request.
        threads: Number of engine threads. None: 1, or the value on the command line.
        cpus: Indices of the cores that capture, preprocessing and engine run on. Empty: all.
        priority: Real-time priority (``SCHED_FIFO``, 1 to 99) of the same. None: an ordinary process.
        pixel_format: V4L2 fourcc: ``GREY`` (uint8), ``Y16`` (uint16), or a colour format such as ``YUYV`` or ``MJPG``;
            for a RealSense ``Y8`` or ``Y16``.
        telemetry_rows: Number of rows at the bottom of a V4L2 device's frames that are not part of the picture (2 for a
            Lepton's 160x122) and are cut off; negative: at the top. ``height_px`` includes them.
        index: Infrared imager of a RealSense: 1 is the left one, 2 the right one. None: 1.
        emitter: Projector of a RealSense: ``off``, ``on`` (dots in the picture), or ``alternating``, where lit frames
            are skipped. None: ``off``.
        exposure_us: Exposure of a RealSense, microseconds; None leaves it to the device.
        gain: Gain of a RealSense; None leaves it to the device.
        open_timeout_ms: Longest wait for the first picture of a network camera or topic. None: 5 s.
        transport: Transport protocol of an ``rtsp:`` camera: ``tcp`` or ``udp``. None: ``tcp``.
        credentials_env: Environment variable with ``user:password`` for a network camera.
        ca_file: CA certificates that an ``https:`` or ``rtsps:`` camera is verified against. None: this machine's.
        topic: Image topic of a recording to replay. None: the only one.
        reliability: QoS reliability of a ``ros2:`` subscription: ``reliable``, ``best_effort``, or ``auto``: reliable
            if all publishers offer it. None: ``auto``.
        durability: ``volatile``, or ``transient_local`` to also receive the latest earlier images. None: ``volatile``.
        depth: Number of messages of the topic that are queued. None: 5.
        compressed: Whether the topic carries ``CompressedImage``. None: what its publishers declare.
        domain: ROS domain id. None: ``ROS_DOMAIN_ID``.
        trust: Public key, or folder of keys; a model must be signed with one of them. None: any model.
    """

    model_config = ConfigDict(hide_input_in_errors=True)
    uri: Annotated[
        str, Field(min_length=1, max_length=8192, pattern=r"^[^\x00]+$", repr=False), WrapValidator(_of_any_bytes)
    ]
    band: Literal["nir", "lwir", "depth", "rgb"] | None = None
    hfov_deg: float | None = Field(default=None, ge=3, le=157)
    fps: float | None = Field(default=None, ge=0.001, le=1000)
    width_px: int | None = Field(default=None, ge=8, le=8192)
    height_px: int | None = Field(default=None, ge=8, le=8192)
    clock: ClockKind = "monotonic"
    threads: int | None = Field(default=None, ge=1, le=256)
    cpus: tuple[Annotated[int, Field(ge=0, le=4095)], ...] = ()
    priority: int | None = Field(default=None, ge=1, le=99)
    pixel_format: str | None = Field(default=None, pattern=r"^[A-Za-z0-9]{3,4}$")
    telemetry_rows: int = Field(default=0, ge=-16, le=16)
    index: int | None = Field(default=None, ge=1, le=2)
    emitter: Literal["off", "on", "alternating"] | None = None
    exposure_us: float | None = Field(default=None, gt=0, le=10_000_000)
    gain: float | None = Field(default=None, ge=0, le=10_000)
    open_timeout_ms: int | None = Field(default=None, ge=100, le=60_000)
    transport: Literal["tcp", "udp"] | None = None
    credentials_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    ca_file: Path | None = None
    topic: str | None = Field(default=None, min_length=1, max_length=1024)
    reliability: Literal["auto", "reliable", "best_effort"] | None = None
    durability: Literal["volatile", "transient_local"] | None = None
    depth: int | None = Field(default=None, ge=1, le=100)
    compressed: bool | None = None
    domain: int | None = Field(default=None, ge=0, le=232)
    trust: Path | None = None

    @field_validator("cpus", mode="before")
    @classmethod
    def _is_list(cls, value: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise ValueError("a list in a camera file, e.g. cpus = [1]")
        return value

    @property
    def scheme(self) -> str:
        """The kind of camera: the scheme of the URI."""
        return parse(self.uri).scheme

    @property
    def target(self) -> str:
        """The device or path in the URI."""
        return parse(self.uri).target

    @property
    def query(self) -> dict[str, str]:
        """The keys set in the URI."""
        return parse(self.uri).query


@dataclass(frozen=True, slots=True)
class SharedConfig:
    """Settings that the cameras of one stream share: threads, cores, trust.

    Attributes:
        configs: Configuration of each camera, by its name or URI as requested.
        threads: Number of engine threads; None if no file sets it.
        cpus: Cores of the whole stream; empty for all.
        priority: Real-time priority of the whole stream.
        trusts: The model must be trusted by each of these.
    """

    configs: dict[str, CameraConfig]
    threads: int | None
    cpus: tuple[int, ...]
    priority: int | None
    trusts: tuple[Path, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> SharedConfig:
        """Look up the cameras of one stream.

        Raises:
            ConfigError: As ``camera_config``, or two files disagree on a shared setting.
        """
        configs = {name: camera_config(name) for name in names}
        return cls(
            configs,
            _agreed(configs, "threads"),
            _agreed(configs, "cpus") or (),
            _agreed(configs, "priority"),
            tuple(config.trust for config in configs.values() if config.trust is not None),
        )


def _agreed(configs: dict[str, CameraConfig], key: str) -> Any:
    """Return the common value of a key in the cameras that set it; None if none does."""
    values = {name: _in_order(getattr(config, key)) for name, config in configs.items() if getattr(config, key)}
    if len(set(values.values())) > 1:
        raise ConfigError(
            f"cameras of one stream with different {key}: "
            + ", ".join(f"{shown(n)} {_listed(v)}" for n, v in values.items()),
            "the same, because they share one engine",
            f"set {key} in one of the camera files, or to the same in all",
        )
    return next(iter(values.values()), None)


def _in_order(value: Any) -> Any:
    return tuple(sorted(value)) if isinstance(value, tuple) else value


def _listed(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def source_name(asked: str) -> tuple[str, str]:
    """Split ``NAME=CAMERA`` into the source name of its labels and the camera; without a name, both are ``asked``."""
    named = None if os.path.exists(asked) else _NAMED.fullmatch(asked)  # noqa: PTH110 - never raises
    return (named[1], named[2]) if named else (asked, asked)


def camera_config(name_or_uri: str) -> CameraConfig:
    """Look up a named camera or parse a URI; either may be prefixed with a source name for its labels (``left=ir0``).

    Raises:
        ConfigError: Unknown name or kind, a path without its kind, a faulty file, or a key that this kind of camera
            does not have; the message suggests the closest match.
    """
    name_or_uri = source_name(name_or_uri)[1]
    is_file = name_or_uri.endswith(".toml")
    if ":" not in name_or_uri or is_file:
        _check_has_kind(name_or_uri)
        config = recipes.load("runtime", name_or_uri, CameraConfig)
        where = str(recipes.find("runtime", name_or_uri))
    else:
        where = shown(name_or_uri)
        config = recipes.validate({"uri": name_or_uri}, CameraConfig, f"camera {where}")
    _check_scheme(config)
    _check_url(config)
    _check_topic(config)
    config = config if config.scheme == "synthetic" else _with_query(config)
    _check_keys(config, where)
    return config


def _with_query(config: CameraConfig) -> CameraConfig:
    """Apply the keys in the URI's query; not for synthetic cameras, which parse their own keys."""
    if not config.query:
        return config
    raw = {**config.model_dump(exclude_unset=True), **config.query, "uri": f"{config.scheme}:{config.target}"}
    return recipes.validate(raw, CameraConfig, f"camera {shown(config.uri)}")


def _check_url(config: CameraConfig) -> None:
    """Refuse a URL without a host, before a part of it could be mistaken for something else and shown."""
    if config.scheme not in NETWORK:
        return
    url = config.uri
    if not config.target.startswith("//"):
        raise ConfigError(
            f"camera {config.scheme}: without // after it",
            f"{config.scheme}://HOST[:PORT]/PATH",
            f"--camera {shown(f'{config.scheme}://{config.target}')}",
        )
    try:
        parts = urlsplit(url.partition("#")[0])
        port, host = parts.port, parts.hostname
        is_whole = host is not None or (config.scheme == "udp" and port is not None)
    except ValueError:  # an invalid port
        is_whole = False
    user = url.partition("://")[2].rpartition("@")[0]
    if not is_whole or set(user) & set("/?#@[]") or any(c.isspace() for c in url):
        raise ConfigError(
            f"camera {shown(url)} is not a camera URL",
            f"{config.scheme}://[USER:PASSWORD@]HOST[:PORT]/PATH",
            "write special characters of user, password and path as %XX (a # is %23, an @ is %40)",
        )


def _check_topic(config: CameraConfig) -> None:
    """Refuse an invalid name of a ROS topic."""
    if config.scheme != TOPIC or TOPIC_NAME.fullmatch(config.target):
        return
    found = f"'{config.target}' is not a topic name" if config.target else "names no topic"
    raise ConfigError(
        f"camera {TOPIC}: {found}",
        f"{TOPIC}:/NAME/OF/TOPIC, of letters, digits and _, no digit first",
        "ros2 topic list -t or kd-edge cameras --ros shows them",
    )


def _check_has_kind(name: str) -> None:
    """Refuse a device, recording or host without its kind; a name of a camera file takes precedence."""
    if name.endswith(".toml") or name in recipes.names("runtime"):
        return
    if (found := meant(name, SCHEMES)) is not None:
        raise _without_kind(name, found)


def _without_kind(name: str, found: Meant) -> ConfigError:
    quoted = "" if found.what == "a host" else f" '{name}'"  # it may contain a password
    return ConfigError(
        f"camera{quoted} is {found.what} without its kind",
        f"one of {forms(SCHEMES)} before it",
        f"--camera {found.uri}",
    )


def has_key(config: CameraConfig, key: str) -> bool:
    """Whether this kind of camera has a key."""
    return key not in _DEVICE_KEYS or key in (*OWN_KEYS.get(config.scheme, ()), *_recorded_keys(config))


def _check_keys(config: CameraConfig, where: str) -> None:
    fields = CameraConfig.model_fields
    foreign = [k for k in _DEVICE_KEYS if not has_key(config, k) and getattr(config, k) != fields[k].default]
    if foreign:
        raise ConfigError(
            f"camera {where} sets {', '.join(foreign)}, which no {config.scheme}: camera has",
            "only keys that this kind of camera has",
            f"take them out, or use them with {_whose(foreign)}:",
        )
    clocks = _TOPIC_CLOCKS if config.scheme == TOPIC else _NETWORK_CLOCKS
    if (
        config.scheme in (*NETWORK, PIPELINE, TOPIC)
        and "clock" in config.model_fields_set
        and config.clock not in clocks
    ):
        raise ConfigError(
            f"camera {where} sets clock = {config.clock}",
            " or ".join(f"{clock} ({meaning})" for clock, meaning in clocks.items()),
            "correct it, or leave it out",
        )


def _recorded_keys(config: CameraConfig) -> tuple[str, ...]:
    """Extra keys of a replayed RealSense recording: the imager, and skipping frames that the projector lit."""
    if config.scheme != "replay" or not config.target.lower().endswith((".bag", ".db3")):
        return ()
    return ("index", "emitter") if config.emitter == "alternating" else ("index",)


def _whose(keys: list[str]) -> str:
    """Return a kind of camera that has the first of these keys."""
    return next(kind for kind, own in OWN_KEYS.items() if keys[0] in own and kind != "synthetic")


def _check_scheme(config: CameraConfig) -> None:
    if config.scheme not in SCHEMES:
        if (found := host_meant(config.uri, SCHEMES)) is not None:
            raise _without_kind(config.uri, found)
        visible = shown(f"http:{config.uri}").removeprefix("http://") if "@" in config.uri else shown(config.uri)
        raise ConfigError(
            f"camera URI '{visible}' of unknown kind{did_you_mean(config.scheme, SCHEMES)}",
            f"one of {forms(SCHEMES)}",
            "kd-edge cameras shows what there is and the exact line to use it",
        )
