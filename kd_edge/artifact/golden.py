"""The golden clip: frames and the logits they must give, carried by the artifact as its self-test."""

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
"""The golden clip's frames take at most this much memory."""
RESIZED_PIXELS = 300_000_000
"""All frames together, resized for the network, have at most so many: about a second of a robot's start."""
_LONGEST_ASPECT = 8
"""A frame's longer side by its shorter one: resizing a longer strip to the model's side would take gigabytes."""
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class GoldenClip:
    """Frames with a known answer, for the self-test at load; equal only to itself.

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


class _Packed(BaseModel):
    """The text, of the right types and within bounds."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    shape: list[Annotated[int, Field(ge=1, le=8192)]] = Field(min_length=3, max_length=4)
    dtype: Literal["uint8", "uint16"]
    stamps_ns: list[Annotated[int, Field(ge=0, le=1 << 62)]]
    logits: list[Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]]
    tolerance: float = Field(ge=0)
    frames: str

    def unpacked(self) -> npt.NDArray[Any]:
        """The frames; ValueError where they are more or fewer bytes than the shape says, or more than is allowed."""
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
    """Read what ``pack_golden`` wrote.

    Raises:
        ArtifactError: Damaged, larger than allowed, or made for another manifest.
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
    """ValueError for frames, stamps or logits that cannot be what this model was given and gave."""
    spec, (count, height, width, *colours) = manifest.preprocess, packed.shape
    if packed.dtype != manifest.dtype or colours != ([3] if spec.channels == 3 else []):
        raise ValueError(f"it holds {packed.dtype} {tuple(packed.shape)} of a {manifest.dtype} model")
    short, long = sorted((height, width))
    if long > _LONGEST_ASPECT * short:
        raise ValueError(f"its frames are {width}x{height} pixels")
    if count * spec.resize_px**2 * long / short > RESIZED_PIXELS:
        raise ValueError(f"{count} frames of {width}x{height} pixels, resized to {spec.resize_px}")
    if len(packed.stamps_ns) != count or any(b <= a for a, b in itertools.pairwise(packed.stamps_ns)):
        raise ValueError(f"its stamps are not {count} increasing ones")
    if len(packed.logits) != len(manifest.labels):
        raise ValueError(f"{len(packed.logits)} logits for {len(manifest.labels)} labels")
