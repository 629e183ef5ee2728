"""Film strips: rows of a clip's segment frames with a title, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kd_edge.errors import DataError
from kd_edge.files import replacing
from kd_edge.packages import import_extra
from kd_edge.preprocess import Preprocess
from kd_edge.types import Float32

Rgb = npt.NDArray[np.uint8]

HEAT = "jet"
"""Colour map of class activation maps: blue low, red high, as in the SAKDN paper's Fig. 9."""
MAP = "cividis"
"""Colour map of maps on their own; the same to the colour-blind."""
MOST_COLUMNS = 8
FRAME_INCHES = 1.45
LEFT_INCHES, RIGHT_INCHES, TITLE_INCHES, STAMP_INCHES, BLANK_INCHES = 1.85, 0.15, 0.72, 0.28, 0.05
LEAST_INCHES = 9.5
"""Least width of a picture: a title needs it."""
DOTS_PER_INCH = 110
_LETTER_INCHES = 0.0072
"""Mean width of a letter per point of its size."""


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of frames.

    Attributes:
        title: Text at the left of the row.
        frames: (T, h, w, 3) uint8.
    """

    title: str
    frames: Rgb


def seen_frames(inputs: Float32, spec: Preprocess) -> Rgb:
    """The newest frame of each segment as the network sees it: cropped and windowed, for the eye.

    Args:
        inputs: (T, C, S, S) float32, normalised.
        spec: The preprocessing that made them.

    Returns:
        (T, S, S, 3) uint8, grey for one channel.
    """
    channels = spec.channels
    mean, std = (np.asarray(v[:channels] if len(v) > 1 else v * channels, np.float32) for v in (spec.mean, spec.std))
    planes = inputs[:, :channels] * std[:, None, None] + mean[:, None, None]  # (T, 1 | 3, S, S), the newest frame first
    grey = (np.clip(planes, 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.repeat(grey, 3 // channels, axis=1).transpose(0, 2, 3, 1))


def positive_share(maps: Float32) -> Float32:
    """Maps of one clip (T, h, w) from 0, nothing or evidence against, to 1, the highest value of the clip."""
    highest = float(maps.max(initial=0.0))
    share: Float32 = np.clip(maps, 0, None) / np.float32(highest if highest > 0 else 1.0)
    return share


def enlarged(maps: Float32, size: tuple[int, int]) -> Float32:
    """Maps (T, h, w) resampled bilinearly to (T, height, width)."""
    cv2 = import_extra("cv2", "cpu")
    height, width = size
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in maps])


def coloured(maps: Float32, size: tuple[int, int]) -> Rgb:
    """Maps (T, h, w) in [0, 1] alone, dark blue for 0 and yellow for 1: (T, height, width, 3)."""
    return (colormaps[MAP](enlarged(maps, size))[..., :3] * 255).round().astype(np.uint8)


def heated(frames: Rgb, maps: Float32, strength: float = 0.5) -> Rgb:
    """Frames (T, S, S, 3) below heat maps (T, h, w) in [0, 1]."""
    heat = colormaps[HEAT](enlarged(maps, frames.shape[1:3]))[..., :3] * 255  # (T, S, S, 3)
    return ((1 - strength) * frames + strength * heat).round().astype(np.uint8)


def weighted(frames: Rgb, maps: Float32) -> Rgb:
    """Every channel of frames (T, S, S, 3) times maps (T, h, w) in [0, 1]: what the map leaves out is black."""
    return (frames * enlarged(maps, frames.shape[1:3])[..., None]).round().astype(np.uint8)


def draw_strips(strips: Sequence[Strip], stamps: Sequence[str], title: str, caption: str, path: Path) -> None:
    """Draw rows of frames below each other; more than eight columns go on below.

    Args:
        strips: Rows of T frames of equal size each.
        stamps: T texts, above the columns.
        title: Title of the picture.
        caption: Smaller text below the title: how to read the picture.
        path: The PNG to write.

    Raises:
        DataError: The picture cannot be written.
    """
    columns = min(MOST_COLUMNS, len(stamps))
    blocks = -(-len(stamps) // columns)
    width = max(LEAST_INCHES, LEFT_INCHES + columns * FRAME_INCHES + RIGHT_INCHES)
    height = TITLE_INCHES + blocks * (STAMP_INCHES + len(strips) * (FRAME_INCHES + BLANK_INCHES))
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    heading(figure, title, caption)
    top = height - TITLE_INCHES
    for first in range(0, len(stamps), columns):
        chosen = slice(first, first + columns)
        top -= STAMP_INCHES
        for number, strip in enumerate(strips):
            top -= FRAME_INCHES
            box = (LEFT_INCHES / width, top / height, columns * FRAME_INCHES / width, FRAME_INCHES / height)
            axis = figure.add_axes(box)
            _draw_row(axis, strip.frames[chosen], columns)
            axis.text(-0.012, 0.5, strip.title, transform=axis.transAxes, ha="right", va="center", fontsize=11)
            if number == 0:
                for column, stamp in enumerate(stamps[chosen]):
                    place = ((column + 0.5) / columns, 1.03)
                    axis.text(*place, stamp, transform=axis.transAxes, ha="center", va="bottom", fontsize=10)
            top -= BLANK_INCHES
    save(figure, path)


def heading(figure: Figure, title: str, caption: str) -> None:
    """A title and a smaller line below it at the top left; long ones in smaller letters."""
    width, height = (float(inches) for inches in figure.get_size_inches())
    for text, size, down, colour in ((title, 13, 0.1, "k"), (caption, 10, 0.42, "0.3")):
        fitting = min(size, (width - 0.25) / (_LETTER_INCHES * max(len(text), 1)))
        figure.text(0.12 / width, 1 - down / height, text, ha="left", va="top", fontsize=fitting, color=colour)


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    with replacing(path, DataError, option="--out") as file:
        file.write(buffer.getbuffer())


def _draw_row(axis: Axes, frames: Rgb, columns: int) -> None:
    """Frames side by side; empty places at the right of a last, shorter row."""
    axis.set_xlim(0, columns)
    axis.set_ylim(0, 1)
    axis.set_axis_off()
    for column, frame in enumerate(frames):
        axis.imshow(frame, extent=(column + 0.01, column + 0.99, 0.01, 0.99), interpolation="nearest", aspect="auto")
    axis.set_xlim(0, columns)
    axis.set_ylim(0, 1)
