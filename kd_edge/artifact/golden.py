"""The golden clip: frames and their expected logits, stored in the artifact as its self-test."""

from __future__ import annotations

import base64
import itertools
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from kd_edge.artifact.manifest import GOLDEN_BYTES, Manifest, fault
from kd_edge.errors import ArtifactError
from kd_edge.reading import read_json
from kd_edge.types import Float32, Int64

FRAMES_BYTES = 64_000_000
"""Upper limit for the size of the golden clip's frames in memory, in bytes."""
RESIZED_PIXELS = 300_000_000
"""Upper limit for the pixels of all frames after resizing: processing them takes about a second at a robot's start."""
_LONGEST_ASPECT = 8
"""Largest aspect ratio of a frame: resizing a longer strip to the model's input size would take gigabytes."""
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class GoldenClip:
    """Frames with known logits for the self-test at load time; compared by identity.

    Attributes:
        frames: (N, H, W) or (N, H, W, 3), the camera's dtype, before preprocessing.
        stamps_ns: (N,) int64.
        logits: (K,) float32, expected after the last frame if the T segment frames are pushed and all frames observed.
        tolerance: Largest absolute difference of a logit that passes.
    """

    frames: npt.NDArray[Any]
    stamps_ns: Int64
    logits: Float32
    tolerance: float


def pack_golden(golden: GoldenClip) -> str:
    """Serialise a golden clip to the text stored in the artifact."""
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


class _Packed(BaseModel):
    """The stored text, validated for types and bounds."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    shape: list[Annotated[int, Field(ge=1, le=8192)]] = Field(min_length=3, max_length=4)
    dtype: Literal["uint8", "uint16"]
    stamps_ns: list[Annotated[int, Field(ge=0, le=1 << 62)]]
    logits: list[Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]]
    tolerance: float = Field(ge=0)
    frames: str

    def unpacked(self) -> npt.NDArray[Any]:
        """Decompress the frames; ValueError if their size does not match the shape or exceeds the limit."""
        dtype = np.dtype(self.dtype)
        size = math.prod(self.shape) * dtype.itemsize
        if size > FRAMES_BYTES:
            raise ValueError(f"its frames take {size:,} bytes, more than {FRAMES_BYTES:,}")
        inflater = zlib.decompressobj()
        unpacked = inflater.decompress(base64.b64decode(self.frames, validate=True), size + 1)
        if len(unpacked) != size or not inflater.eof:
            raise ValueError(f"its frames are not {size:,} bytes")
        return np.frombuffer(unpacked, dtype=dtype).reshape(self.shape)


def unpack_golden(text: str, manifest: Manifest, path: Path) -> GoldenClip:
    """Parse the text written by ``pack_golden``.

    Raises:
        ArtifactError: The text is damaged, larger than allowed, or was made for another manifest.
    """
    try:
        if len(text) > GOLDEN_BYTES:
            raise ValueError(f"{len(text):,} bytes, more than {GOLDEN_BYTES:,}")
        packed = _Packed.model_validate(read_json(text))
        _check_fits(packed, manifest)
        return GoldenClip(
            packed.unpacked(),
            np.array(packed.stamps_ns, dtype=np.int64),
            np.array(packed.logits, dtype=np.float32),
            packed.tolerance,
        )
    except (ValueError, zlib.error) as error:
        raise ArtifactError(
            f"{path} has an unreadable golden clip ({fault(error)})", "one written by kd-edge", "export the run again"
        ) from error


def _check_fits(packed: _Packed, manifest: Manifest) -> None:
    """Raise ValueError if frames, stamps or logits do not fit the model's inputs and outputs."""
    spec, (count, height, width, *colours) = manifest.preprocess, packed.shape
    if packed.dtype != manifest.dtype or colours != ([3] if spec.channels == 3 else []):
        raise ValueError(f"it has {packed.dtype} frames {tuple(packed.shape)} for a {manifest.dtype} model")
    short, long = sorted((height, width))
    if long > _LONGEST_ASPECT * short:
        raise ValueError(f"its frames are {width}x{height} pixels")
    if count * spec.resize_px**2 * long / short > RESIZED_PIXELS:
        raise ValueError(f"{count} frames of {width}x{height} pixels, resized to {spec.resize_px}")
    if len(packed.stamps_ns) != count or any(b <= a for a, b in itertools.pairwise(packed.stamps_ns)):
        raise ValueError(f"its stamps are not {count} increasing numbers")
    if len(packed.logits) != len(manifest.labels):
        raise ValueError(f"{len(packed.logits)} logits for {len(manifest.labels)} labels")
