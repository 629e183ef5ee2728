"""Write a ready-to-use camera file for a detected camera."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from kd_edge.errors import ConfigError, printable
from kd_edge.files import replacing
from kd_edge.runtime.cameras.modes import Mode, PixelFormat, best, best_fps

FOLDER = Path("runtime/cameras")
"""Camera files, relative to the working folder."""
TELEMETRY_ROWS = {(160, 122): 2}
"""Number of telemetry rows at the bottom of frames of a known size (FLIR's Lepton 3)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def camera_file(uri: str, description: str, formats: Sequence[PixelFormat], band: str = "") -> str:
    """Return the text of a camera file (TOML).

    Args:
        uri: URI of the device.
        description: Description for the first line.
        formats: Formats it can deliver; the best one is written.
        band: Its spectral band, if known.
    """
    lines = [f"# {printable(description) or 'A camera'} (kd-edge cameras lists its other formats)"]
    lines += [_line("uri", uri)]
    lines += [_line("band", band)] if band else ['# band = "nir"  # nir, lwir (thermal), depth or rgb: what it sees']
    if (chosen := best(formats)) is not None:
        lines += [_line("pixel_format", chosen[0].name), *([] if chosen[1] is None else _mode_lines(chosen[1]))]
    return "\n".join(lines) + "\n"


def write_camera_file(name: str, text: str, *, overwrite: bool = False) -> Path:
    """Write ``runtime/cameras/NAME.toml`` in the working folder.

    Raises:
        ConfigError: The file exists already, the name is invalid, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"camera name '{name}'", "at most 64 letters, digits, - and _", "choose another, for example ir0"
        )
    path = FOLDER / f"{name}.toml"
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise ConfigError(f"{path} exists already", "a new name", "choose another --write, or add --force")
    with replacing(path, ConfigError, mode=0o600) as file:  # its URI may hold a password
        file.write(text.encode())
    return path


def _mode_lines(mode: Mode) -> list[str]:
    size = (mode.width_px, mode.height_px)
    telemetry = [f"telemetry_rows = {TELEMETRY_ROWS[size]}  # cut off at the bottom"] if size in TELEMETRY_ROWS else []
    return [f"width_px = {size[0]}", f"height_px = {size[1]}", *telemetry, f"fps = {best_fps(mode):g}"]


def _line(key: str, value: str) -> str:
    return f"{key} = {json.dumps(printable(value), ensure_ascii=False)}"  # a JSON string is a valid TOML string
