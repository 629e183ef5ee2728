"""Multi-page TIFF files as recordings: one frame per page, 8 or 16 bit as stored, decoded on access.

OpenCV decodes the pages; their positions are read here, for random access and to check their sizes first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.readers.bounds import check_pixels
from kd_edge.data.readers.images import decode_pixels, rgb_or_grey
from kd_edge.packages import import_extra
from kd_edge.reading import open_regular
from kd_edge.types import Image

if TYPE_CHECKING:
    from typing_extensions import Self

ENDINGS = (".tif", ".tiff")
MOST_PAGES = 1_000_000
MOST_BYTES = 64_000_000_000
_WIDTHS, _HEIGHTS = (256, 322), (257, 323)  # tags of the page and of its tiles
_MOST_ENTRIES = 4096
_KIND_OF_PAGE = 254
_REDUCED = 1  # a preview of another page
_NUMBERS = {3: "H", 4: "I", 16: "Q"}


class _Form(NamedTuple):
    """Number formats of a TIFF variant: byte order, offsets, position of the first directory's offset, its entries."""

    order: str
    offset: str
    first: int
    entries: str
    entry_bytes: int
    value_at: int


_FORMS = {
    b"II*\0": _Form("<", "I", 4, "H", 12, 8),
    b"MM\0*": _Form(">", "I", 4, "H", 12, 8),
    b"II+\0": _Form("<", "Q", 8, "Q", 20, 12),
    b"MM\0+": _Form(">", "Q", 8, "Q", 20, 12),
}


def is_tiff(head: bytes) -> bool:
    """Whether a file is TIFF, by its first four bytes."""
    return head[:4] in _FORMS


def several(path: Path) -> bool:
    """Whether a file is a TIFF of several pages; also False if it cannot be read."""
    try:
        with _Directories(path) as found:
            return len(list(islice(found.positions(), 2))) > 1
    except (OSError, ValueError):
        return False


class _Directories:
    """Positions of the pages of a file, which stays mapped until ``close``."""

    def __init__(self, path: Path) -> None:
        self._content: npt.NDArray[np.uint8] | None = None
        with open_regular(path) as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(4)
            if not is_tiff(head):
                raise ValueError("it is not a TIFF")
            if size > MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
            self._content = np.memmap(file, np.uint8, mode="c")  # copy-on-write: changes stay in memory
        self._form = _FORMS[head]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._content = None

    def positions(self) -> Iterator[int]:
        """Yield the positions of the pages' directories.

        Raises:
            ValueError: A directory lies beyond the end of the file, their chain does not end, or a page is not a frame.
        """
        form = self._form
        seen: set[int] = set()
        at = self._number(form.offset, form.first)
        while at:
            if at in seen or len(seen) >= MOST_PAGES:
                raise ValueError(f"its pages do not end after {len(seen):,}")
            seen.add(at)
            count = self._number(form.entries, at)
            entries = at + struct.calcsize(form.entries)
            if count > _MOST_ENTRIES:
                raise ValueError(f"page {len(seen)} has {count:,} entries")
            values = dict(filter(None, (self._entry(entries + k * form.entry_bytes) for k in range(count))))
            if not values.get(_KIND_OF_PAGE, 0) & _REDUCED:
                width, height = (max(values.get(tag, 0) for tag in tags) for tags in (_WIDTHS, _HEIGHTS))
                check_pixels(width, height)
                yield at
            following = entries + count * form.entry_bytes
            at = self._number(form.offset, following) if following < self._bytes() else 0

    def _entry(self, at: int) -> tuple[int, int] | None:
        tag, kind = self._number("H", at), self._number("H", at + 2)
        if tag not in (*_WIDTHS, *_HEIGHTS, _KIND_OF_PAGE):
            return None
        if kind not in _NUMBERS:
            raise ValueError(f"its size is of kind {kind}")
        return tag, self._number(_NUMBERS[kind], at + self._form.value_at)

    def _number(self, kind: str, at: int) -> int:
        assert self._content is not None
        piece = bytes(self._content[at : at + struct.calcsize(kind)])
        if len(piece) < struct.calcsize(kind):
            raise ValueError("its header breaks off")
        return int(struct.unpack(self._form.order + kind, piece)[0])

    def _bytes(self) -> int:
        return 0 if self._content is None else len(self._content)


class Pages(_Directories):
    """The pages of a file as frames of an array (T, H, W[, 3]), each decoded on access.

    All pages must have the same size and type; accessing one that differs raises an error. Previews are skipped.

    Args:
        path: The file. It stays mapped until ``close``.

    Attributes:
        dtype: ``uint8`` or ``uint16``.
        shape: (T, H, W), or (T, H, W, 3) in R, G, B order.
        ndim: Number of dimensions.

    Raises:
        ValueError: No TIFF, damaged, or its pages are no frames.
        OSError: Not there, or no regular file.
    """

    def __init__(self, path: Path) -> None:
        self._cv2 = import_extra("cv2", "cpu")
        super().__init__(path)
        try:
            self._positions = list(self.positions())
            if not self._positions:
                raise ValueError("it has no page")
            first = self._decoded(0)
        except ValueError:
            self.close()
            raise
        self.dtype: np.dtype[Any] = first.dtype
        self.shape: tuple[int, ...] = (len(self._positions), *first.shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> Image:
        image = self._decoded(number)
        if (image.dtype, image.shape) != (self.dtype, self.shape[1:]):
            raise ValueError(f"page {number + 1} is {image.dtype} {image.shape}, not {self.dtype} {self.shape[1:]}")
        return image

    def _decoded(self, number: int) -> Image:
        """Decode one page. OpenCV decodes the first page, so the header's offset is changed to that of this page."""
        assert self._content is not None, "the file is closed"
        offset = struct.pack(self._form.order + self._form.offset, self._positions[number])
        self._content[self._form.first : self._form.first + len(offset)] = np.frombuffer(offset, np.uint8)
        fault = ""
        try:
            return rgb_or_grey(self._cv2, decode_pixels(self._cv2, self._content), grey=False)
        except ValueError as error:
            fault = str(error)
        raise ValueError(f"page {number + 1}: {fault}")  # not chained: the cause would keep the file mapped
