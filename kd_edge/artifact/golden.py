"""The golden clip: frames and the logits they must give, carried by the artifact as its self-test."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.errors import ArtifactError, reason
from kd_edge.types import Float32, Int64


@dataclass(frozen=True, slots=True)
class GoldenClip:
    """Frames with a known answer, for the self-test at load.

    Attributes:
        frames: (N, H, W) or (N, H, W, 3), the camera's dtype, before preprocessing.
        stamps_ns: (N,) int64.
        logits: (K,) float32, expected after the last frame when the T segment frames were pushed and all observed.
        tolerance: Largest absolute difference that passes.
    """

    frames: npt.NDArray[Any]
    stamps_ns: Int64
    logits: Float32
    tolerance: float


def pack_golden(golden: GoldenClip) -> str:
    """The text that the artifact carries."""
    frames = np.ascontiguousarray(golden.frames)
    packed = zlib.compress(frames.tobytes(), level=9)
    return json.dumps(
        {
            "shape": frames.shape,
            "dtype": str(frames.dtype),
            "stamps_ns": golden.stamps_ns.tolist(),
            "logits": [float(x) for x in golden.logits],
            "tolerance": golden.tolerance,
            "frames": base64.b64encode(packed).decode(),
        }
    )


def unpack_golden(text: str, path: Path) -> GoldenClip:
    """Read what ``pack_golden`` wrote.

    Raises:
        ArtifactError: Damaged.
    """
    try:
        raw = json.loads(text)
        dtype = np.dtype({"uint8": np.uint8, "uint16": np.uint16}[raw["dtype"]])
        shape = tuple(int(n) for n in raw["shape"])
        limit = int(np.prod(shape)) * dtype.itemsize
        unpacked = zlib.decompressobj().decompress(base64.b64decode(raw["frames"]), limit)  # bounded: no zip bomb
        frames = np.frombuffer(unpacked, dtype=dtype).reshape(shape)
        return GoldenClip(
            frames,
            np.asarray(raw["stamps_ns"], dtype=np.int64),
            np.asarray(raw["logits"], dtype=np.float32),
            float(raw["tolerance"]),
        )
    except (KeyError, TypeError, ValueError, zlib.error, binascii.Error) as error:
        raise ArtifactError(
            f"{path} has an unreadable golden clip ({reason(error)})", "one written by kd-edge", "export the run again"
        ) from error
