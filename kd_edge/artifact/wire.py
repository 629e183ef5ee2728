"""Read and write the protobuf encoding of an ONNX file without onnx: its metadata, attachments and signature."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kd_edge.artifact.manifest import MANIFEST_KEY, ForeignFileError
from kd_edge.errors import ArtifactError

METADATA_BYTES = 8_000_000
"""Upper limit for the size of all metadata entries of a file together, in bytes."""
FILE_BYTES = 2**31 - 1
"""Upper limit for the size of any protobuf message, in bytes."""
_FIELDS = 200_000
"""Upper limit for the fields of a message: no network has more, and checking them would take long."""
ATTACHMENTS = {"ncnn.param": 1_000_000, "ncnn.bin": 256_000_000}
"""Names of the allowed attachments, and the largest size of each in bytes."""

METADATA_PROPS = 14  # field numbers of onnx.ModelProto
_IR_VERSION, GRAPH = 1, 7
ATTACHMENT, _SIGNATURE = 1100, 1101  # not used by ONNX: every protobuf reader skips unknown fields
_NAME, _CONTENT = 1, 2  # field numbers of an attachment
_NAME_BYTES = 64

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; ONNX files contain no groups (3 and 4)
FIXED = {FIXED64: 8, FIXED32: 4}
"""Size in bytes of the wire types of fixed length."""


class Field(NamedTuple):
    """One field of a message: its number, wire type, start position, and its value or the length of its payload."""

    number: int
    wire: int
    start: int
    value: int


class Span(NamedTuple):
    """A range of bytes in a file."""

    start: int
    length: int


class Layout(NamedTuple):
    """The top level of an artifact.

    Attributes:
        props: The metadata entries.
        last: Position of the last metadata entry, the manifest.
        attachments: Positions of the attachments, by name.
        end: Position of the signature; the end of the file if there is no signature.
    """

    props: dict[str, str]
    last: int
    attachments: dict[str, Span]
    end: int


def varint(value: int) -> bytes:
    """Serialise a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """Serialise a field with a non-negative integer."""
    return varint(number << 3 | VARINT) + varint(value)


def bytes_field(number: int, payload: bytes) -> bytes:
    """Serialise a field with bytes, text or a message."""
    return varint(number << 3 | BYTES) + varint(len(payload)) + payload


class Part(NamedTuple):
    """One field of a message in memory: its number, all of its bytes, and its payload (None unless of type bytes)."""

    number: int
    whole: bytes
    payload: bytes | None


def parts(message: bytes, most: int = _FIELDS) -> list[Part]:
    """Split a message in memory into its fields; joined together, their bytes are the message.

    Raises:
        ValueError: The bytes are not a message, or it has more than ``most`` fields.
    """
    stream, found = io.BytesIO(message), list[Part]()
    bounds: list[tuple[Field, int]] = []  # each field, and the start of its payload
    for field in walk(stream, 0, len(message)):
        if len(bounds) == most:
            raise ValueError(f"more than {most:,} fields")
        bounds.append((field, stream.tell()))
    ends = [*(field.start for field, _ in bounds), len(message)][1:]
    for (field, begin), end in zip(bounds, ends, strict=True):
        payload = message[begin:end] if field.wire == BYTES else None
        found.append(Part(field.number, message[field.start : end], payload))
    return found


def entry(key: str, value: str) -> bytes:
    """Serialise one StringStringEntryProto of ``metadata_props``."""
    return bytes_field(METADATA_PROPS, bytes_field(1, key.encode()) + bytes_field(2, value.encode()))


def attachment_head(name: str, length: int) -> bytes:
    """Serialise the bytes that precede the ``length`` bytes of an attachment.

    Raises:
        ArtifactError: The attachment's name is unknown, or it is too long.
    """
    if length > ATTACHMENTS.get(name, -1):
        raise ArtifactError(
            f"an attachment '{name}' of {length:,} bytes",
            " or ".join(f"{known} of at most {most:,} bytes" for known, most in ATTACHMENTS.items()),
            "attach a smaller model, or none",
        )
    inner = bytes_field(_NAME, name.encode()) + varint(_CONTENT << 3 | BYTES) + varint(length)
    return varint(ATTACHMENT << 3 | BYTES) + varint(len(inner) + length) + inner


def read_varint(file: BinaryIO) -> tuple[int, int]:
    """Read the next varint; return it and the number of bytes read.

    Raises:
        ValueError: The bytes are not a varint, or end too early.
    """
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value, shift // 7
        if shift > 63:
            break
    raise ValueError("not a varint")


def walk(file: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """Iterate over the fields of the message between two positions, with the file positioned at each field's payload.

    Raises:
        ValueError: The bytes are not a message, or a field extends beyond ``end``.
    """
    at = start
    while at < end:
        file.seek(at)
        tag, taken = read_varint(file)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"field number {number}")
        value, more = (FIXED[wire], 0) if wire in FIXED else read_varint(file)
        payload = at + taken + more
        after = payload if wire == VARINT else payload + value
        if wire not in (VARINT, BYTES, *FIXED) or after > end:
            raise ValueError(f"field {number} of wire type {wire} ends at {after:,} of {end:,}")
        yield Field(number, wire, at, value)
        at = after


def layout(file: BinaryIO, path: Path) -> Layout:
    """Walk the top-level fields: read the metadata and locate the manifest, attachments and signature.

    Raises:
        ArtifactError: The file is not ONNX, damaged, truncated or larger than allowed.
    """
    size = os.fstat(file.fileno()).st_size
    props: dict[str, str] = {}
    attachments: dict[str, Span] = {}
    last = total = 0
    end, is_signed = size, False
    seen: set[int] = set()
    foreign = ForeignFileError(
        f"{path} is not an ONNX model", "an artifact written by kd-edge export", "kd-edge export RUN"
    )
    if size > FILE_BYTES:
        raise foreign
    try:
        for count, field in enumerate(walk(file, 0, size)):
            if not seen and (field.number, field.wire) != (_IR_VERSION, VARINT):
                raise foreign
            if MANIFEST_KEY in props:
                if (field.number, field.wire) == (_SIGNATURE, BYTES) and not is_signed:
                    is_signed, end = True, field.start
                    continue
                raise damaged(path, "something follows its manifest")
            if count == _FIELDS:
                raise damaged(path, "it has too many fields")
            seen.add(field.number)
            if (field.number, field.wire) == (ATTACHMENT, BYTES):
                name, span = _read_attachment(file, field.value, path)
                if name in attachments:
                    raise damaged(path, f"{name} is attached twice")
                attachments[name] = span
            if (field.number, field.wire) != (METADATA_PROPS, BYTES):
                continue
            total += field.value
            if total > METADATA_BYTES:
                raise damaged(path, f"its metadata is longer than {METADATA_BYTES:,} bytes")
            key, value = _parse_entry(file.read(field.value), path)
            if key in props:
                raise damaged(path, "it has a metadata entry twice")
            props[key], last = value, field.start
    except ValueError as error:
        raise truncated(path, size) if seen else foreign from error
    if GRAPH not in seen:
        raise foreign
    return Layout(props, last, attachments, end)


class Ends(NamedTuple):
    """Positions of the last fields of a file, found without reading their contents.

    Attributes:
        last: Position of the last field before the signature.
        end: Position of the signature; the end of the file if there is no signature.
        signature: Range of the signature's payload; None if there is no signature.
    """

    last: int
    end: int
    signature: Span | None


def ends(file: BinaryIO, path: Path) -> Ends:
    """Walk the top-level fields by their lengths alone: no content is parsed before the signature is checked.

    Raises:
        ArtifactError: The file is not a protobuf message.
    """
    size = os.fstat(file.fileno()).st_size
    fields: list[Field] = []
    try:
        for count, field in enumerate(walk(file, 0, size)):
            if count == _FIELDS or size > FILE_BYTES:
                raise ValueError("too many fields")
            fields = [*fields[-1:], field]
            payload = file.tell()
    except ValueError as error:
        raise truncated(path, size) from error
    if not fields:
        raise truncated(path, size)
    if (fields[-1].number, fields[-1].wire) == (_SIGNATURE, BYTES) and len(fields) > 1:
        return Ends(fields[-2].start, fields[-1].start, Span(payload, fields[-1].value))
    return Ends(fields[-1].start, size, None)


def signature_field(bundle: bytes) -> bytes:
    """Serialise a signature as the last field of a file."""
    return bytes_field(_SIGNATURE, bundle)


def damaged(path: Path, why: str) -> ArtifactError:
    """Create the error for a damaged file."""
    return ArtifactError(f"{path} is damaged ({why})", "the bytes that were exported", "copy or export it again")


def truncated(path: Path, size: int) -> ArtifactError:
    """Create the error for a file that ends too early."""
    return ArtifactError(
        f"{path} is truncated ({size:,} bytes)", "the whole file", "copy the file again or export again"
    )


def _read_attachment(file: BinaryIO, length: int, path: Path) -> tuple[str, Span]:
    """Return name and position of the attachment at the file's current position; only the name is read."""
    start = file.tell()
    fields = walk(file, start, start + length)
    try:
        first = next(fields, None)
        if first is None or (first.number, first.wire) != (_NAME, BYTES) or first.value > _NAME_BYTES:
            raise ValueError("it does not start with its name")
        if (name := file.read(first.value).decode()) not in ATTACHMENTS:
            raise ValueError(f"'{name}' is unknown")
        second = next(fields, None)
        if second is None or (second.number, second.wire) != (_CONTENT, BYTES):
            raise ValueError(f"{name} has no content")
        span = Span(file.tell(), second.value)
        if span.length > ATTACHMENTS[name] or span.start + span.length != start + length:
            raise ValueError(f"{name} of {span.length:,} bytes in {length:,}")
    except ValueError as error:
        raise damaged(path, f"an attachment is unreadable: {error}") from error
    return name, span


def _parse_entry(payload: bytes, path: Path) -> tuple[str, str]:
    stream = io.BytesIO(payload)
    texts = {1: "", 2: ""}
    try:
        for count, field in enumerate(walk(stream, 0, len(payload))):
            if count == len(texts) or field.number not in texts or field.wire != BYTES:
                raise ValueError(f"field {field.number}")
            texts[field.number] = stream.read(field.value).decode()
    except ValueError as error:
        raise damaged(path, f"a metadata entry is unreadable: {error}") from error
    return texts[1], texts[2]
