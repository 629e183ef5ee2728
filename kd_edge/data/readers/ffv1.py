"""Checksums of FFV1. FFmpeg detects damage by them but silently shows the previous content instead."""

from __future__ import annotations

import zlib

_FOOTER = 8  # bytes at the end of a slice: three of size, one of status, four of checksum
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES = 0xFFFFFFFF


class Checksums:
    """Checks the packets of one file if they have checksums: optional in version 3, missing in older ones."""

    def __init__(self) -> None:
        self._are_present = False

    def find_damage(self, packet: bytes) -> bool:
        """Whether the checksums show that the next packet is damaged."""
        slices = _slices(packet)
        self._are_present = self._are_present or bool(slices)
        return self._are_present and not (slices and all(map(_is_intact, slices)))


def _slices(packet: bytes) -> list[bytes]:
    """Slices of a packet; empty unless each slice ends in its size and a checksum."""
    found, end = [], len(packet)
    while end >= _FOOTER:
        start = end - _FOOTER - int.from_bytes(packet[end - 8 : end - 5], "big")
        if start < 0:
            return []
        found.append(packet[start:end])
        end = start
    return found if end == 0 else []


def _is_intact(piece: bytes) -> bool:
    """Whether the CRC-32, most significant bit first, over content and checksum together is 0."""
    return zlib.crc32(piece.translate(_REVERSED), _ONES) == _ONES
