"""What a user says about a camera: a name (``runtime/cameras/NAME.toml``) or a URI, as one validated model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kd_edge import recipes
from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.runtime.clock import MAX_AHEAD_MS, ClockKind
from kd_edge.runtime.uri import forms, parse

SCHEMES = ("replay", "synthetic", "v4l2", "realsense")
_REALSENSE_KEYS = ("index", "emitter", "exposure_us", "gain")
FOREIGN_KEYS = {
    "replay": ("pixel_format", "clock", "width_px", "height_px", *_REALSENSE_KEYS),
    "synthetic": ("pixel_format", "clock", "topic", *_REALSENSE_KEYS),
    "v4l2": ("topic", *_REALSENSE_KEYS),
    "realsense": ("clock", "topic"),
}
"""What only a device can be asked for: nothing comes of it elsewhere, so it is refused there."""


class TimeOuts(BaseModel):
    """How long a stream waits for a camera; a camera of one's own may bring them as its attribute ``timeouts``.

    Attributes:
        read_timeout_ms: No frame for so long means that the camera is gone: it is reopened.
        reconnect_max_ms: Longest pause between two attempts to reopen.
        frozen_ms: The same picture for so long means that the camera hangs: its frames no longer count.
        max_ahead_ms: How far a frame's stamp may lie ahead of now; one further ahead is of another clock, and lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    read_timeout_ms: int = Field(1000, ge=50, le=60_000)
    reconnect_max_ms: int = Field(1500, ge=100, le=60_000)
    frozen_ms: int = Field(2000, ge=100, le=60_000)
    max_ahead_ms: int = Field(round(MAX_AHEAD_MS), ge=0, le=60_000)


class CameraConfig(TimeOuts):
    """One camera, with its time-outs.

    Attributes:
        clock: What the camera's stamps are of: ``monotonic`` (this machine's, which V4L2 drivers use), ``wall`` (its
            time of day), ``device`` (any clock of the device's own) or ``arrival`` (no usable stamps: the moment of
            reading).
        uri: ``v4l2:/dev/video0``, ``realsense:SERIAL``, ``replay:PATH`` or ``synthetic:``; what follows a ``?`` sets
            the other keys (``v4l2:/dev/video0?pixel_format=Y16&fps=9``).
        band: What the camera sees; a model for another band is refused. None: not known, not checked.
        fps: Frame rate to ask for, or of a recording without stamps, 1/s. None: the camera's own.
        width_px: Frame width to ask for. None: the camera's own.
        height_px: Frame height to ask for.
        threads: How many the engine may use. None: 1, or what the command line says.
        cpus: Numbers of the cores that capture, preprocessing and engine run on. Empty: all.
        priority: Real-time priority (``SCHED_FIFO``, 1 to 99) of the same. None: an ordinary process.
        pixel_format: V4L2 fourcc: ``GREY`` (uint8), ``Y16`` (uint16), or a colour format such as ``YUYV`` or ``MJPG``;
            of a RealSense ``Y8`` or ``Y16``.
        index: Which infrared imager of a RealSense: 1 is the left one, 2 the right one. None: 1.
        emitter: Its projector: ``off``, ``on`` (dots in the picture), or ``alternating``, whose lit frames are left
            out. None: ``off``.
        exposure_us: Its exposure, microseconds; None leaves it to the device.
        gain: Its gain; None leaves it to the device.
        topic: Of a recording with image topics, the one to replay. None: the only one.
        trust: Public key, or folder of keys: a model must be signed with one of them. None: any model.
    """

    uri: str = Field(min_length=1, max_length=8192, pattern=r"^[^\x00]+$")
    band: Literal["nir", "lwir", "depth", "rgb"] | None = None
    fps: float | None = Field(None, ge=0.001, le=1000)
    width_px: int | None = Field(None, ge=8, le=8192)
    height_px: int | None = Field(None, ge=8, le=8192)
    clock: ClockKind = "monotonic"
    threads: int | None = Field(None, ge=1, le=256)
    cpus: tuple[Annotated[int, Field(ge=0, le=4095)], ...] = ()
    priority: int | None = Field(None, ge=1, le=99)
    pixel_format: str | None = Field(None, pattern=r"^[A-Za-z0-9]{3,4}$")
    index: int | None = Field(None, ge=1, le=2)
    emitter: Literal["off", "on", "alternating"] | None = None
    exposure_us: float | None = Field(None, gt=0, le=10_000_000)
    gain: float | None = Field(None, ge=0, le=10_000)
    topic: str | None = Field(None, min_length=1, max_length=1024)
    trust: Path | None = None

    @field_validator("cpus", mode="before")
    @classmethod
    def _is_list(cls, value: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise ValueError("a list in a camera file, e.g. cpus = [1]")
        return value

    @property
    def scheme(self) -> str:
        """The kind of camera."""
        return parse(self.uri).scheme

    @property
    def target(self) -> str:
        """Its device or path."""
        return parse(self.uri).target

    @property
    def query(self) -> dict[str, str]:
        """What the URI sets besides."""
        return parse(self.uri).query


def camera_config(name_or_uri: str) -> CameraConfig:
    """Look up a named camera or read a URI.

    Raises:
        ConfigError: Unknown name or kind, a path without its kind, a faulty file, or a key that such a camera does not
            have, each with the closest thing that exists.
    """
    is_file = name_or_uri.endswith(".toml")
    if ":" not in name_or_uri or is_file:
        _check_no_path(name_or_uri)
        config = recipes.load("runtime", name_or_uri, CameraConfig)
        where = str(recipes.find("runtime", name_or_uri))
    else:
        config = recipes.validate({"uri": name_or_uri}, CameraConfig, f"camera {name_or_uri}")
        where = name_or_uri
    _check_scheme(config)
    config = config if config.scheme == "synthetic" else _with_query(config)
    _check_keys(config, where)
    return config


def _with_query(config: CameraConfig) -> CameraConfig:
    """A URI's query sets the other keys; synthetic cameras have keys of their own and read it themselves."""
    if not config.query:
        return config
    raw = {**config.model_dump(exclude_unset=True), **config.query, "uri": f"{config.scheme}:{config.target}"}
    return recipes.validate(raw, CameraConfig, f"camera {config.uri}")


def _check_no_path(name: str) -> None:
    """Refuse a device or recording without its kind; a camera's name wins over a folder that is called the same."""
    is_device = name.startswith("/dev/")
    exists = not name.endswith(".toml") and os.path.exists(name)  # noqa: PTH110 - never raises, whatever is typed
    if is_device or (exists and name not in recipes.names("runtime")):
        raise ConfigError(
            f"camera '{name}' is a path without its kind",
            f"one of {forms(SCHEMES)} before it",
            f"--camera {'v4l2' if is_device else 'replay'}:{name}",
        )


def _check_keys(config: CameraConfig, where: str) -> None:
    fields = CameraConfig.model_fields
    foreign = [k for k in FOREIGN_KEYS.get(config.scheme, ()) if getattr(config, k) != fields[k].default]
    if foreign:
        raise ConfigError(
            f"camera {where} sets {', '.join(foreign)}, which no {config.scheme}: camera has",
            "only keys that this kind of camera has",
            f"take them out, or use them with {_whose(foreign)}:",
        )


def _whose(keys: list[str]) -> str:
    """The kind of camera that has these keys."""
    if "topic" in keys:
        return "replay"
    return "realsense" if set(keys) & set(_REALSENSE_KEYS) else "v4l2"


def _check_scheme(config: CameraConfig) -> None:
    if config.scheme not in SCHEMES:
        raise ConfigError(
            f"camera URI '{config.uri}' of unknown kind{did_you_mean(config.scheme, SCHEMES)}",
            f"one of {forms(SCHEMES)}",
            "kd-edge cameras shows what there is and the exact line to use it",
        )
