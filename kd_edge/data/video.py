"""Decode a video file into a clip, through PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_edge.errors import DataError, import_extra
from kd_edge.types import Clip


def read_video(path: Path) -> Clip:
    """Decode every frame of a video.

    Returns:
        Clip of (T, H, W, 3) uint8 in R, G, B order; stamps from the file, 0 at the first frame.

    Raises:
        DataError: Absent, damaged or without a picture; the file is named.
    """
    if not path.is_file():
        raise DataError(f"no file {path}", "a video", "complete the data set (kd-edge data check)")
    av = import_extra("av", "train")
    images: list[npt.NDArray[np.uint8]] = []
    stamps: list[float] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            period = 1 / float(stream.average_rate or 30)
            for frame in container.decode(stream):
                stamps.append(frame.time if frame.time is not None else len(stamps) * period)
                images.append(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError, ValueError, OSError) as error:
        raise _damaged(path, str(error)) from error
    if not images:
        raise _damaged(path, "it has no picture")
    if any(image.shape != images[0].shape for image in images):
        raise _damaged(path, "its pictures differ in size")
    stamps_ns = np.round((np.array(stamps) - stamps[0]) * 1e9).astype(np.int64)
    if np.any(np.diff(stamps_ns) <= 0):
        raise _damaged(path, "its time stamps do not increase")
    return Clip(np.stack(images), stamps_ns)


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is damaged: {found}", "a readable video", "fetch it again; training goes on without it")
