"""The self-describing model file: an ONNX graph with its manifest and golden clip inside. Read, verify, append.

A protobuf message may be extended by appending fields, so the manifest is written behind the serialised graph as the
``metadata_props`` entry ``kd_edge`` (the golden clip as ``kd_edge_golden`` before it) and every ONNX tool still reads
the file. Its hash covers all bytes before the manifest entry. Reading needs neither onnx nor an engine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kd_edge.errors import ArtifactError
from kd_edge.files import replacing
from kd_edge.preprocess import Preprocess
from kd_edge.types import Float32, Int64

FORMAT = 1
MANIFEST_KEY = "kd_edge"
GOLDEN_KEY = "kd_edge_golden"
GOLDEN_BYTES = 400_000
"""The golden clip takes at most this many bytes of the file."""

BUNDLED = Path(__file__).parent / "bundled.onnx"
"""A student of the generated data set that ships with kd-edge."""

_METADATA_PROPS = 14  # field numbers of onnx.ModelProto
_IR_VERSION, _GRAPH = 1, 7


class ForeignFileError(ArtifactError):
    """Not a file of kd-edge at all: not ONNX, or without a manifest."""


Band = Literal["nir", "lwir", "depth", "rgb"]


class Parity(BaseModel):
    """How closely the exported graph reproduced the torch model on real frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_abs_error: float
    argmax_agreement: float
    clips: int
    tolerance: float


class StateSpec(BaseModel):
    """A recurrent tensor of the step, the i-th as ``state_in_i`` and ``state_out_i``; zeros before the first frame.

    Attributes:
        name: Module path of the layer that carries it.
        shape: Without the batch axis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    shape: tuple[int, ...]


class Manifest(BaseModel):
    """What a robot must know to run the graph.

    Attributes:
        dtype: Of the camera's frames.
        value_unit: What a raw value measures ("grey level", "mm").
        value_range: Raw values the camera delivers, inclusive.
        segments: Number T of segments in a window.
        clip_seconds: Length of the window; segments lie ``clip_seconds / segments`` apart.
        feature_size: Length D of one frame's feature.
        temporal: Kind of the temporal model.
        states: What one step hands to the next inside the backbone, one segment spacing later; empty for most kinds.
        graph: ``step`` (one new frame per run) or ``clip`` (T frames per run).
        temperature: Divides the logits before the softmax.
        unknown_threshold: Confidence below it makes the label ``unknown``.
        dataset: Settings of the data set it was trained on, so that ``kd-edge evaluate`` finds it; no folders.
        split: Which split of it.
        sha256: Of all bytes before the manifest entry.
        manifest_sha256: Of this manifest as JSON with an empty ``manifest_sha256``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    name: str
    labels: tuple[str, ...] = Field(min_length=2)
    modality: str
    band: Band
    dtype: Literal["uint8", "uint16"]
    value_unit: str
    value_range: tuple[float, float]
    preprocess: Preprocess
    segments: int = Field(ge=1)
    clip_seconds: float = Field(gt=0)
    feature_size: int = Field(ge=1)
    temporal: Literal["tsn", "tconv", "trn", "tsm", "tsm_causal"]
    states: tuple[StateSpec, ...] = ()
    graph: Literal["step", "clip"] = "step"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    temperature: float = Field(1.0, gt=0)
    unknown_threshold: float = Field(0.0, ge=0, le=1)
    accuracy: dict[str, float] = {}
    dataset: dict[str, Any] = {}
    split: str = ""
    parity: Parity | None = None
    recipe_fingerprint: str = ""
    data_fingerprint: str = ""
    versions: dict[str, str] = {}
    sha256: str = ""
    manifest_sha256: str = ""

    def own_hash(self) -> str:
        """What ``manifest_sha256`` must be."""
        bare = self.model_copy(update={"manifest_sha256": ""})
        return hashlib.sha256(bare.model_dump_json().encode()).hexdigest()

    @property
    def spacing_ns(self) -> int:
        """Time between two segments, nanoseconds."""
        return round(self.clip_seconds * 1e9 / self.segments)


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


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified model file."""

    path: Path
    manifest: Manifest
    golden: GoldenClip | None


def default_model(folder: Path | None = None) -> Path:
    """The newest artifact in a folder or in the runs below it, else the one that ships with kd-edge.

    Files of other programs and plain clip models are passed over; a damaged artifact is not: running another model
    instead must not happen silently.

    Args:
        folder: None takes the current one.

    Raises:
        ArtifactError: The newest one is damaged, or there is none at all.
    """
    here = Path() if folder is None else folder
    candidates = [path for pattern in ("*.onnx", "runs/*/*.onnx") for path in here.glob(pattern)]
    for path in sorted(candidates, key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            if load(path).manifest.graph == "step":
                return path
        except ForeignFileError:
            continue
    if not BUNDLED.is_file():
        raise ArtifactError(
            "no artifact here and none in the package", "one", "kd-edge export, or name it with --model"
        )
    return BUNDLED


def write(graph: bytes, manifest: Manifest, golden: GoldenClip | None, path: Path) -> Manifest:
    """Write graph, golden clip and manifest as one file, atomically.

    Args:
        graph: A serialised ONNX ModelProto without external data.
        manifest: The hashes are filled in here.
        golden: Optional self-test clip.
        path: Replaced when it exists.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: The golden clip is too large, or the file cannot be written; nothing is left behind.
    """
    body = graph
    if golden is not None:
        entry = _entry(GOLDEN_KEY, _pack_golden(golden))
        if len(entry) > GOLDEN_BYTES:
            raise ArtifactError(
                f"a golden clip of {len(entry):,} bytes",
                f"at most {GOLDEN_BYTES:,} bytes",
                "use smaller or fewer frames",
            )
        body += entry
    manifest = manifest.model_copy(update={"sha256": hashlib.sha256(body).hexdigest()})
    manifest = manifest.model_copy(update={"manifest_sha256": manifest.own_hash()})
    with replacing(path, ArtifactError) as file:
        file.write(body)
        file.write(_entry(MANIFEST_KEY, manifest.model_dump_json()))
    return manifest


def load(path: Path | str) -> Artifact:
    """Read and verify an artifact: is it ONNX, whole, ours, undamaged, of a known format?

    Raises:
        ArtifactError: With what was found and how to fix it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            props, manifest_at = _metadata(file, path)
            if MANIFEST_KEY not in props:
                raise ForeignFileError(
                    f"{path} is an ONNX model without a kd-edge manifest",
                    "an artifact written by kd-edge export",
                    "export the run again: kd-edge export RUN",
                )
            digest = _sha256(file, manifest_at)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no file {path}", "an artifact (student.onnx)", "kd-edge export, or check the path"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror})", "a readable file", "check the path") from error
    text = props[MANIFEST_KEY]
    manifest = _parse_manifest(text, path)
    if digest != manifest.sha256 or _text_hash(text, manifest.manifest_sha256) != manifest.manifest_sha256:
        raise _damaged(path, "its bytes do not have the hash that was written with them")
    golden = _unpack_golden(props[GOLDEN_KEY], path) if GOLDEN_KEY in props else None
    return Artifact(path, manifest, golden)


def _text_hash(text: str, own: str) -> str:
    """``own_hash`` of a manifest as it was written: a field this release added since must not change it."""
    return hashlib.sha256(text.replace(f'"manifest_sha256":"{own}"', '"manifest_sha256":""').encode()).hexdigest()


def _parse_manifest(text: str, path: Path) -> Manifest:
    try:
        raw = json.loads(text)
        version = raw.get("format")
        if version != FORMAT:
            raise ArtifactError(
                f"{path} has manifest format {version}", f"format {FORMAT}", "use the kd-edge release that wrote it"
            )
        return Manifest.model_validate(raw)
    except (ValueError, AttributeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise ArtifactError(
            f"{path} has an unreadable manifest ({first})", "a manifest written by kd-edge", "export the run again"
        ) from error


def _sha256(file: BinaryIO, length: int) -> str:
    """Hash the first ``length`` bytes in small pieces: a 45 MB model must not pass through the process's memory."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 18))
    file.seek(0)
    while length > 0:
        got = file.readinto(buffer[: min(length, len(buffer))])  # type: ignore[attr-defined]
        if not got:
            break
        digest.update(buffer[:got])
        length -= got
    return digest.hexdigest()


# Protobuf's wire format, as much of it as the metadata needs. Wire type 2 is "length-delimited".


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _entry(key: str, value: str) -> bytes:
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


def _metadata(file: BinaryIO, path: Path) -> tuple[dict[str, str], int]:
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
            raise _truncated(path, size) if _GRAPH in seen else foreign from error
        if length is None:
            raise _truncated(path, size) if _GRAPH in seen else foreign
        if not seen and (number, wire) != (_IR_VERSION, 0):
            raise foreign
        seen.add(number)
        if wire == 0:
            continue
        if file.tell() + length > size:
            raise _truncated(path, size)
        if MANIFEST_KEY in props:
            raise _damaged(path, "something follows its manifest")
        if number == _METADATA_PROPS:
            try:
                key, value = _parse_entry(file.read(length))
            except (ValueError, KeyError) as error:
                raise _damaged(path, f"a metadata entry is unreadable: {error}") from error
            props[key] = value
            last = start
        else:
            file.seek(length, os.SEEK_CUR)
    if _GRAPH not in seen:
        raise foreign
    return props, last


def _damaged(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({why})", "the bytes that were exported", "copy or export it again")


def _truncated(path: Path, size: int) -> ArtifactError:
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


def _pack_golden(golden: GoldenClip) -> str:
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


def _unpack_golden(text: str, path: Path) -> GoldenClip:
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
            f"{path} has an unreadable golden clip ({error})", "one written by kd-edge", "export the run again"
        ) from error
