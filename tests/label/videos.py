"""Small recordings whose frames tell their number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH = 48, 64


def numbered(number: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """(48, 64): a frame that is evenly its number, of 16 bit a hundred times as much above 20,000."""
    value = number if dtype == np.uint8 else 20_000 + 100 * number
    return np.full((HEIGHT, WIDTH), value, dtype)


def write_video(
    path: Path,
    frames: Sequence[npt.NDArray[Any]],
    *,
    codec: str = "ffv1",
    pixels: str = "gray",
    fps: int = 10,
    stamps: Sequence[int] | None = None,
    container: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video of grey frames; stamps in ms take the place of even ones.

    Args:
        path: Its ending says which container.
        frames: (H, W) each.
        codec: FFmpeg's name.
        pixels: FFmpeg's name.
        fps: Frames a second.
        stamps: Of the frames, ms.
        container: Options of the container.
        options: Of the codec.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="gray16le" if frame.dtype == np.uint16 else "gray")
            picture.pts = number if stamps is None else stamps[number]
            for packet in stream.encode(picture):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path
