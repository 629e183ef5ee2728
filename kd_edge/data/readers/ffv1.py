"""The checksums of FFV1: FFmpeg finds damage by them and shows what was there before instead, without a word."""

from __future__ import annotations

import zlib

_FOOTER = 8  # of a slice: three bytes of size, one of status, four of checksum
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES = 0xFFFFFFFF


class Checksums:
    """Checks the packets of one file, if they have checksums: version 3 may have them, older ones have none."""

    def __init__(self) -> None:
        self._are_there = False

    def find_damage(self, packet: bytes) -> bool:
        """Whether the next packet is damaged, as far as can be known."""
        slices = _slices(packet)
        self._are_there = self._are_there or bool(slices)
        return self._are_there and not (slices and all(map(_is_sound, slices)))


def _slices(packet: bytes) -> list[bytes]:
    """What a packet is made of, if each part ends in its size and a checksum; else nothing."""
    found, end = [], len(packet)
    while end >= _FOOTER:
        start = end - _FOOTER - int.from_bytes(packet[end - 8 : end - 5], "big")
        if start < 0:
            return []
        found.append(packet[start:end])
        end = start
    return found if end == 0 else []


def _is_sound(piece: bytes) -> bool:
    """CRC-32, most significant bit first, is 0 over content and checksum together."""
    return zlib.crc32(piece.translate(_REVERSED), _ONES) == _ONES
