"""Size limits of recordings, checked in their headers before anything is decoded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

FRAME_PIXELS = 10_000_000
"""Most pixels of a frame: 3840 x 2160 and a little more."""
MATLAB_BYTES = 100_000_000
"""Most memory for the variables of a MATLAB file; the longest depth clip of UTD-MHAD takes a fifth of it."""

_PIECE = 1 << 18
_MATLAB_HEADER, _MATLAB_COMPRESSED = 128, 15
_MATLAB_VERSION_5 = {b"\0\1IM": "<", b"\1\0MI": ">"}
_JPEG_SIZED = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers
_JPEG_BARE = frozenset(range(0xD0, 0xDA)) | {0x01}  # markers without a length
_TIFF_SIZES = {256: 0, 257: 1, 322: 0, 323: 1}  # width and height of the image and of its tiles
_TIFF_NUMBERS = {3: "H", 4: "I"}


def image_size(content: bytes) -> tuple[int, int]:
    """Return width and height in pixels of a PNG, JPEG, BMP, TIFF or PNM image, recognised by content.

    OpenCV decodes any format it knows, regardless of the file name, and allocates memory for the size in the header, so
    the size has to be checked first. OpenCV's own limit is 2^30 pixels and is read only once, on import.

    Raises:
        ValueError: The file is of another kind, or truncated.
    """
    for signature, size in _SIZES.items():
        if content.startswith(signature):
            try:
                return size(content)
            except (struct.error, IndexError) as error:
                raise ValueError("its header breaks off") from error
    raise ValueError("it is not a PNG, JPEG, BMP, TIFF or PNM image")


def check_pixels(width: float, height: float) -> None:
    """Check the size of a frame.

    Raises:
        ValueError: The frame has no pixels or more than ``FRAME_PIXELS``.
    """
    if not (width >= 1 and height >= 1 and width * height <= FRAME_PIXELS):
        raise ValueError(f"{width:.0f}x{height:.0f} pixels, not 1 to {FRAME_PIXELS:,}")


def check_matlab(file: BinaryIO) -> None:
    """Check the uncompressed size and the version of a MATLAB file.

    Raises:
        ValueError: The file unpacks to more than ``MATLAB_BYTES``, or is not of version 5.
    """
    remaining = MATLAB_BYTES
    header = file.read(_MATLAB_HEADER)
    order = _MATLAB_VERSION_5.get(header[124:])
    if order is None or 0 in header[:4]:  # a zero there means version 4
        raise ValueError("it is not a MATLAB 5 file")
    while len(tag := file.read(8)) == 8:
        kind, length = struct.unpack(f"{order}2I", tag)
        inflater = zlib.decompressobj() if kind == _MATLAB_COMPRESSED else None
        while length > 0 and (piece := file.read(min(length, _PIECE))):
            length -= len(piece)
            remaining -= len(piece) if inflater is None else _inflated(inflater, piece, remaining)
            if remaining < 0:
                raise ValueError(f"its variables take more than {MATLAB_BYTES:,} bytes")


def _inflated(inflater: zlib._Decompress, piece: bytes, limit: int) -> int:
    """Number of bytes that a compressed piece unpacks to, counted up to the limit or to the first damage."""
    count = 0
    while piece and count <= limit:
        try:
            count += len(inflater.decompress(piece, _PIECE))
        except zlib.error:
            return count
        piece = inflater.unconsumed_tail
    return count


def _png(content: bytes) -> tuple[int, int]:
    if content[12:16] != b"IHDR":
        raise ValueError("its header is not where it must be")
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        if at > len(content):  # OpenCV allocates a chunk before reading it
            raise ValueError(f"it breaks off {at - len(content):,} bytes before the end of a chunk")
        if kind == b"acTL":
            raise ValueError("it is an animation")
    width, height = struct.unpack_from(">2I", content, 16)
    return width, height


def _bmp(content: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<2i" if header >= 36 else "<2H", content, 18)
    return width, abs(height)  # a negative height means that the rows are stored top-down


def _pnm(content: bytes) -> tuple[int, int]:
    numbers: list[int] = []
    for line in content[2:_PIECE].split(b"\n"):
        for word in line.partition(b"#")[0].split():
            if not word.isdigit() or len(word) > 9:
                raise ValueError("its header is not made of numbers")
            numbers.append(int(word))
            if len(numbers) == 2:
                return numbers[0], numbers[1]
    raise ValueError("its header breaks off")


def _jpeg(content: bytes) -> tuple[int, int]:
    at = 2
    while True:
        at = content.index(b"\xff", at)
        while content[at] == 0xFF:
            at += 1
        marker, at = content[at], at + 1
        if marker in _JPEG_SIZED:
            height, width = struct.unpack_from(">2H", content, at + 3)
            return width, height
        if marker and marker not in _JPEG_BARE:
            at += struct.unpack_from(">H", content, at)[0]


def _tiff(content: bytes) -> tuple[int, int]:
    order = "<" if content.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    size = [0, 0]
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}2H", content, entry)
        if tag in _TIFF_SIZES:
            if kind not in _TIFF_NUMBERS:
                raise ValueError(f"its size is of kind {kind}")
            (number,) = struct.unpack_from(order + _TIFF_NUMBERS[kind], content, entry + 8)
            size[_TIFF_SIZES[tag]] = max(size[_TIFF_SIZES[tag]], number)
    return size[0], size[1]


_SIZES: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8\xff": _jpeg,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    **{b"P%d" % kind: _pnm for kind in range(1, 7)},
}
