"""The protobuf bytes of an ONNX file's metadata, read and written without onnx."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from kd_edge.artifact.manifest import MANIFEST_KEY, ForeignFileError
from kd_edge.errors import ArtifactError

_METADATA_PROPS = 14  # field numbers of onnx.ModelProto
_IR_VERSION, _GRAPH = 1, 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def entry(key: str, value: str) -> bytes:
    """One serialised StringStringEntryProto of ``metadata_props``."""
    return _field(_METADATA_PROPS, _field(1, key.encode()) + _field(2, value.encode()))


def _read_varint(file: BinaryIO) -> int | None:
    """The next varint; None at the end of the file, ValueError inside one."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
        shift += 7
        if shift > 63:
            raise ValueError("no varint")
    if shift:
        raise ValueError("truncated varint")
    return None


def metadata(file: BinaryIO, path: Path) -> tuple[dict[str, str], int]:
    """Walk the top-level fields: metadata_props as a dict, and where the last entry begins."""
    size = os.fstat(file.fileno()).st_size
    props: dict[str, str] = {}
    last = 0
    seen: set[int] = set()
    foreign = ForeignFileError(
        f"{path} is not an ONNX model", "an artifact written by kd-edge export", "kd-edge export RUN"
    )
    while True:
        start = file.tell()
        try:
            tag = _read_varint(file)
            if tag is None:
                break
            number, wire = tag >> 3, tag & 7
            length = _read_varint(file) if wire in (0, 2) else None
        except ValueError as error:
            raise truncated(path, size) if _GRAPH in seen else foreign from error
        if length is None:
            raise truncated(path, size) if _GRAPH in seen else foreign
        if not seen and (number, wire) != (_IR_VERSION, 0):
            raise foreign
        seen.add(number)
        if wire == 0:
            continue
        if file.tell() + length > size:
            raise truncated(path, size)
        if MANIFEST_KEY in props:
            raise damaged(path, "something follows its manifest")
        if number == _METADATA_PROPS:
            try:
                key, value = _parse_entry(file.read(length))
            except (ValueError, KeyError) as error:
                raise damaged(path, f"a metadata entry is unreadable: {error}") from error
            props[key] = value
            last = start
        else:
            file.seek(length, os.SEEK_CUR)
    if _GRAPH not in seen:
        raise foreign
    return props, last


def damaged(path: Path, why: str) -> ArtifactError:
    """What a file that breaks off or makes no sense is refused with."""
    return ArtifactError(f"{path} is damaged ({why})", "the bytes that were exported", "copy or export it again")


def truncated(path: Path, size: int) -> ArtifactError:
    """What a file that ends too early is refused with."""
    return ArtifactError(
        f"{path} is truncated ({size:,} bytes)", "the whole file", "copy the file again or export again"
    )


def _parse_entry(payload: bytes) -> tuple[str, str]:
    stream = io.BytesIO(payload)
    fields = {1: "", 2: ""}
    while (tag := _read_varint(stream)) is not None:
        length = _read_varint(stream) or 0
        fields[tag >> 3] = stream.read(length).decode()
    return fields[1], fields[2]
