"""Pictures with known pixels, as messages in every encoding: worked out with ``struct``, not with what is tested."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Any

HEIGHT, WIDTH = 3, 4
SAMPLES = [[100 * y + 10 * x for x in range(WIDTH)] for y in range(HEIGHT)]
"""0 to 230: what grey pictures hold; of 16 bit 257 times as much, of depth in metres a hundredth."""
PADDING = b"\xaa\xbb\xcc\xdd\xee"


@dataclass(frozen=True)
class Case:
    """A message and what is to become of it.

    Attributes:
        encoding: Its encoding.
        pixel: How ``struct`` packs a sample ``v``: format and values.
        expected: The picture's value of a sample ``v``.
        big: Whether the high byte comes first.
        padded: Whether rows are longer than their pixels.
    """

    encoding: str
    big: bool
    padded: bool

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.encoding}-{'big' if self.big else 'little'}-{'padded' if self.padded else 'tight'}"

    def packed(self, v: int) -> bytes:
        """The bytes of a pixel."""
        order = ">" if self.big else "<"
        wide = {"mono16": 257 * v, "16UC1": 257 * v}
        if self.encoding in wide:
            return struct.pack(f"{order}H", wide[self.encoding])
        if self.encoding == "32FC1":
            return struct.pack(f"{order}f", v / 100)
        if self.encoding == "rgb16":
            return struct.pack(f"{order}3H", 256 * v, 3, 1)
        rgb, alpha = (v, 2, 1), (77,)
        return bytes(
            {
                "mono8": (v,),
                "8UC1": (v,),
                "rgb8": rgb,
                "bgr8": rgb[::-1],
                "8UC3": rgb[::-1],
                "rgba8": rgb + alpha,
                "bgra8": rgb[::-1] + alpha,
            }[self.encoding]
        )

    def expected(self, v: int) -> Any:
        """The picture's value there."""
        if self.encoding in ("mono8", "8UC1"):
            return v
        if self.encoding in ("mono16", "16UC1"):
            return 257 * v
        if self.encoding == "32FC1":
            return 10 * v
        return [256 * v, 3, 1] if self.encoding == "rgb16" else [v, 2, 1]

    @property
    def dtype(self) -> str:
        """Of the picture."""
        return "uint16" if "16" in self.encoding or self.encoding == "32FC1" else "uint8"

    @property
    def rows(self) -> list[bytes]:
        """The bytes of each row."""
        return [b"".join(self.packed(v) for v in row) + (PADDING if self.padded else b"") for row in SAMPLES]

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the message, its data as base64."""
        data = b"".join(self.rows)
        return {
            "height": HEIGHT,
            "width": WIDTH,
            "encoding": self.encoding,
            "is_bigendian": int(self.big),
            "step": len(self.rows[0]),
            "data": base64.b64encode(data).decode(),
        }

    @property
    def picture(self) -> list[Any]:
        """What the message shows."""
        return [[self.expected(v) for v in row] for row in SAMPLES]


ENCODED = ("mono8", "8UC1", "mono16", "16UC1", "32FC1", "rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "rgb16")
CASES = [Case(encoding, big, padded) for encoding in ENCODED for big in (False, True) for padded in (False, True)]


def grey_fields(width: int, height: int, bits: int = 8) -> dict[str, Any]:
    """A black picture."""
    step = width * bits // 8
    return {
        "height": height,
        "width": width,
        "encoding": f"mono{bits}",
        "step": step,
        "data": {"zeros": step * height},
    }
