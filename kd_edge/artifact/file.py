"""The self-describing model file: an ONNX graph with its manifest and golden clip inside. Read, verify, append.

A protobuf message may be extended by appending fields, so the manifest is written behind the serialised graph as the
``metadata_props`` entry ``kd_edge`` (the golden clip as ``kd_edge_golden`` before it) and every ONNX tool still reads
the file. Its hash covers all bytes before the manifest entry. Reading needs neither onnx nor an engine.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kd_edge.artifact import wire
from kd_edge.artifact.golden import FRAMES_BYTES, GoldenClip, pack_golden, unpack_golden
from kd_edge.artifact.manifest import (
    FORMAT,
    GOLDEN_BYTES,
    GOLDEN_KEY,
    MANIFEST_BYTES,
    MANIFEST_KEY,
    ForeignFileError,
    Manifest,
    fault,
)
from kd_edge.errors import ArtifactError
from kd_edge.files import replacing
from kd_edge.reading import open_regular, read_json

BUNDLED = Path(__file__).parents[1] / "bundled.onnx"
"""A student of the generated data set that ships with kd-edge."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified model file."""

    path: Path
    manifest: Manifest
    golden: GoldenClip | None


def default_model(folder: Path | None = None) -> Path:
    """The newest artifact in a folder or in the runs below it, else the one that ships with kd-edge.

    Files of other programs and plain clip models are passed over, and so is what is no readable file (a folder, a FIFO,
    a broken link); a damaged artifact is not: running another model instead must not happen silently.

    Args:
        folder: Folder to look in; None takes the current one.

    Raises:
        ArtifactError: The newest one is damaged, or there is none at all.
    """
    here = Path() if folder is None else folder
    for path in _models(here):
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


def _models(folder: Path) -> list[Path]:
    """Readable regular files that may be artifacts, the newest first."""
    found = []
    for pattern in ("*.onnx", "runs/*/*.onnx"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                facts = path.stat()
                if stat.S_ISREG(facts.st_mode) and os.access(path, os.R_OK):
                    found.append((facts.st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def write(graph: bytes, manifest: Manifest, golden: GoldenClip | None, path: Path) -> Manifest:
    """Write graph, golden clip and manifest as one file, atomically.

    Args:
        graph: A serialised ONNX ModelProto without external data.
        manifest: The manifest, whose hashes are filled in here.
        golden: Optional self-test clip.
        path: File to write; replaced when it exists.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: The golden clip is too large, or the file cannot be written; nothing is left behind.
    """
    body = graph
    if golden is not None:
        entry = wire.entry(GOLDEN_KEY, pack_golden(golden))
        if len(entry) > GOLDEN_BYTES or golden.frames.nbytes > FRAMES_BYTES:
            raise ArtifactError(
                f"a golden clip of {len(entry):,} bytes, its frames {golden.frames.nbytes:,}",
                f"at most {GOLDEN_BYTES:,} bytes and {FRAMES_BYTES:,}",
                "use smaller or fewer frames",
            )
        body += entry
    return _write(body, manifest, path)


def rewrite(artifact: Artifact, manifest: Manifest, path: Path) -> Manifest:
    """Write an artifact with another manifest; all bytes before the manifest stay, and so does the golden clip.

    Args:
        artifact: As loaded; its file must still be there.
        manifest: The new manifest, whose hashes are filled in here.
        path: File to write; may be the artifact's own.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: The file has changed since, or cannot be read or written; nothing is left behind.
    """
    try:
        with open_regular(artifact.path) as file:
            _, manifest_at = wire.metadata(file, artifact.path)
            file.seek(0)
            body = file.read(manifest_at)
    except OSError as error:
        raise ArtifactError(
            f"{artifact.path} cannot be read ({error.strerror})", "a readable file", "check the path"
        ) from error
    if hashlib.sha256(body).hexdigest() != artifact.manifest.sha256:
        raise wire.damaged(artifact.path, "it has changed since it was loaded")
    return _write(body, manifest, path)


def _write(body: bytes, manifest: Manifest, path: Path) -> Manifest:
    manifest = manifest.model_copy(update={"sha256": hashlib.sha256(body).hexdigest()})
    manifest = manifest.model_copy(update={"manifest_sha256": manifest.own_hash()})
    with replacing(path, ArtifactError) as file:
        file.write(body)
        file.write(wire.entry(MANIFEST_KEY, manifest.model_dump_json()))
    return manifest


def load(path: Path | str) -> Artifact:
    """Read and verify an artifact: is it ONNX, whole, ours, undamaged, of a known format?

    Raises:
        ArtifactError: With what was found and how to fix it.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            props, manifest_at = wire.metadata(file, path)
            if MANIFEST_KEY not in props:
                raise ForeignFileError(
                    f"{path} is an ONNX model without a kd-edge manifest",
                    "an artifact written by kd-edge export",
                    "export the run again: kd-edge export RUN",
                )
            text = props[MANIFEST_KEY]
            manifest = _parse_manifest(text, path)
            if (
                _sha256(file, manifest_at) != manifest.sha256
                or _text_hash(text, manifest.manifest_sha256) != manifest.manifest_sha256
            ):
                raise wire.damaged(path, "its bytes do not have the hash that was written with them")
            wire.check_self_contained(file, manifest_at, path)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no file {path}", "an artifact (student.onnx)", "kd-edge export, or check the path"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror})", "a readable file", "check the path") from error
    golden = unpack_golden(props[GOLDEN_KEY], manifest, path) if GOLDEN_KEY in props else None
    return Artifact(path, manifest, golden)


def _text_hash(text: str, own: str) -> str:
    """``own_hash`` of a manifest as it was written: a field this release added since must not change it."""
    return hashlib.sha256(text.replace(f'"manifest_sha256":"{own}"', '"manifest_sha256":""').encode()).hexdigest()


def _parse_manifest(text: str, path: Path) -> Manifest:
    try:
        if len(text) > MANIFEST_BYTES:
            raise ValueError(f"{len(text):,} bytes, more than {MANIFEST_BYTES:,}")
        version = read_json(text).get("format")
        if type(version) is not int or version != FORMAT:  # True is an integer, too
            raise ArtifactError(
                f"{path} has manifest format {str(version)[:20]}",
                f"format {FORMAT}",
                "use the kd-edge release that wrote it",
            )
        return Manifest.model_validate_json(text, strict=True)
    except ValueError as error:
        raise ArtifactError(
            f"{path} has an unreadable manifest ({fault(error)})",
            "a manifest written by kd-edge",
            "export the run again",
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
