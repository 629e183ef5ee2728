"""Read, verify and write the self-describing model file: an ONNX graph with its manifest and golden clip.

A protobuf message can be extended by appending fields, so the manifest is appended to the serialised graph as the
``metadata_props`` entry ``kd_edge`` (preceded by the golden clip, ``kd_edge_golden``), and every ONNX tool still reads
the file. The same graph in another engine's format is stored between them, as a field unknown to ONNX. The manifest's
hash covers all bytes before its entry. Reading needs neither onnx nor an engine.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kd_edge.artifact import wire
from kd_edge.artifact.access import reading, sha256s
from kd_edge.artifact.golden import FRAMES_BYTES, GoldenClip, pack_golden, unpack_golden
from kd_edge.artifact.graph import check_graph
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
from kd_edge.reading import read_json

if TYPE_CHECKING:
    from kd_edge.artifact.signature import Trust

BUNDLED = Path(__file__).parents[1] / "bundled.onnx"
"""The model that ships with kd-edge, a student trained on the generated data set."""
BUNDLED_NAME = "bundled"
"""The name by which users refer to the bundled model."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified model file.

    Attributes:
        path: The file.
        manifest: What a robot needs to know to run the model.
        golden: The self-test clip.
        attachments: Positions of the same graph in other engines' formats, by name (``wire.ATTACHMENTS``).
        signed_by: Fingerprint of the key whose signature was verified; empty if no signature was required.
        identity: Device, inode, size and times of the file when it was loaded.
        hashed_bytes: Number of bytes from the start of the file that the manifest's hash covers.
    """

    path: Path
    manifest: Manifest
    golden: GoldenClip | None
    attachments: Mapping[str, wire.Span] = field(default_factory=dict)
    signed_by: str = ""
    identity: tuple[int, ...] = ()
    hashed_bytes: int = 0

    def content(self) -> bytes:
        """Return the file's bytes, after checking that the hashed part is still the verified one.

        Raises:
            ArtifactError: The file has changed since it was loaded, or can no longer be read.
        """
        with reading(self.path) as file:
            content = file.read()
        if self.hashed_bytes and hashlib.sha256(content[: self.hashed_bytes]).hexdigest() != self.manifest.sha256:
            raise wire.damaged(self.path, "it has changed since it was loaded")
        return content

    def check_unchanged(self) -> None:
        """Check that the file is still the verified one, because an engine reopens it by name.

        Raises:
            ArtifactError: The file was replaced or modified.
        """
        try:
            found = _identity(self.path.stat())
        except OSError:
            found = (0,)
        if self.identity and found != self.identity:
            raise wire.damaged(self.path, "it has changed since it was loaded")

    @contextmanager
    def open_attachment(self, name: str) -> Iterator[BinaryIO]:
        """Open the file at the start of an attachment, which is ``attachments[name].length`` bytes long.

        Raises:
            ArtifactError: There is no attachment of that name, or the file can no longer be read.
        """
        if name not in self.attachments:
            raise ArtifactError(f"{self.path} carries no {name}", "an artifact exported with it", "export it again")
        with reading(self.path) as file:
            file.seek(self.attachments[name].start)
            yield file

    def attachment(self, name: str) -> bytes:
        """Return the bytes of an attachment.

        Raises:
            ArtifactError: There is no attachment of that name, or the file can no longer be read.
        """
        with self.open_attachment(name) as file:
            content = file.read(self.attachments[name].length)
        if len(content) < self.attachments[name].length:
            raise wire.damaged(self.path, "it has changed since it was loaded")
        return content


def default_model(folder: Path | None = None) -> Path:
    """Return the newest artifact in a folder or in the runs below it, or the bundled one if there is none.

    Files of other programs, plain clip models and anything that is not a readable file (a folder, a FIFO, a broken
    link) are skipped. A damaged artifact is not skipped: another model must not run in its place silently.

    Args:
        folder: Folder to search; None means the current one.

    Raises:
        ArtifactError: The newest artifact is damaged, or there is no artifact at all.
    """
    here = Path() if folder is None else folder
    for path in _candidates(here):
        try:
            if load(path).manifest.graph == "step":
                return path
        except ForeignFileError:
            continue
    if not BUNDLED.is_file():
        raise ArtifactError(
            "no artifact here and none in the package",
            "an artifact (student.onnx)",
            "kd-edge export, or name it with --model",
        )
    return BUNDLED


def _candidates(folder: Path) -> list[Path]:
    """Return the readable regular files that may be artifacts, newest first."""
    found = []
    for pattern in ("*.onnx", "runs/*/*.onnx"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                facts = path.stat()
                if stat.S_ISREG(facts.st_mode) and os.access(path, os.R_OK):
                    found.append((facts.st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def write(
    graph: bytes,
    manifest: Manifest,
    golden: GoldenClip | None,
    path: Path,
    attachments: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write graph, attachments, golden clip and manifest as one file, atomically.

    Args:
        graph: A serialised ONNX ModelProto without external data.
        manifest: The manifest; its hashes are filled in here.
        golden: Optional self-test clip.
        path: File to write; replaced if it exists.
        attachments: The graph in other engines' formats, by name (``wire.ATTACHMENTS``).

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: The golden clip or an attachment is too large, or the file cannot be written; no partial file is
            left behind.
    """
    body = [graph]
    for name, content in (attachments or {}).items():
        body += [wire.attachment_head(name, len(content)), content]
    if golden is not None:
        entry = wire.entry(GOLDEN_KEY, pack_golden(golden))
        if len(entry) > GOLDEN_BYTES or golden.frames.nbytes > FRAMES_BYTES:
            raise ArtifactError(
                f"a golden clip of {len(entry):,} bytes, with {golden.frames.nbytes:,} bytes of frames",
                f"at most {GOLDEN_BYTES:,} bytes, with at most {FRAMES_BYTES:,} bytes of frames",
                "use smaller or fewer frames",
            )
        body.append(entry)
    return _write(body, manifest, path)


def rewrite(artifact: Artifact, manifest: Manifest, path: Path) -> Manifest:
    """Write an artifact with another manifest, keeping all bytes before it (graph, attachments and golden clip).

    Args:
        artifact: The loaded artifact; its file must still exist.
        manifest: The new manifest; its hashes are filled in here.
        path: File to write; may be the artifact's own.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: The file has changed since it was loaded, or cannot be read or written; no partial file is left
            behind.
    """
    with reading(artifact.path) as file:
        manifest_at = wire.ends(file, artifact.path).last
        file.seek(0)
        body = file.read(manifest_at)
    if hashlib.sha256(body).hexdigest() != artifact.manifest.sha256:
        raise wire.damaged(artifact.path, "it has changed since it was loaded")
    return _write([body], manifest, path)


def _write(body: Sequence[bytes], manifest: Manifest, path: Path) -> Manifest:
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    manifest = manifest.model_copy(update={"sha256": digest.hexdigest()})
    manifest = manifest.model_copy(update={"manifest_sha256": manifest.own_hash()})
    with replacing(path, ArtifactError) as file:
        file.writelines(body)
        file.write(wire.entry(MANIFEST_KEY, manifest.model_dump_json()))
    return manifest


def artifact_path(name: Path | str) -> Path:
    """Return the file that a name refers to: ``bundled`` is the model that ships, unless a file has that name."""
    return BUNDLED if str(name) == BUNDLED_NAME and not os.path.lexists(name) else Path(name)


def load(path: Path | str, *, trust: Trust | Path | str | None = None) -> Artifact:
    """Read an artifact and verify that it is a complete, undamaged ONNX file of kd-edge in a known format.

    Args:
        path: The file, or ``bundled`` (see ``artifact_path``).
        trust: Public key, folder of keys, or ``Trust``. If given, the artifact must be signed with one of these keys,
            inside the file or in a ``.sig`` file next to it; this is checked before anything else is read.

    Raises:
        ArtifactError: A check failed; the error states what was found and how to fix it.
        ConfigError: ``trust`` is not a key.
        MissingExtraError: ``cryptography``, which checks signatures, is not installed.
    """
    trusted = None if trust is None else _as_trust(trust)
    path = artifact_path(path)
    with reading(path) as file:
        identity = _identity(os.fstat(file.fileno()))
        signed_by, digests = ("", {}) if trusted is None else _check_signature(file, path, trusted)
        props, manifest_at, attachments, _ = wire.layout(file, path)
        if MANIFEST_KEY not in props:
            raise ForeignFileError(
                f"{path} is an ONNX model without a kd-edge manifest",
                "an artifact written by kd-edge export",
                "export the run again: kd-edge export RUN",
            )
        text = props[MANIFEST_KEY]
        manifest = _parse_manifest(text, path)
        if (digests.get(manifest_at) or _sha256(file, manifest_at)) != manifest.sha256 or _text_hash(
            text, manifest.manifest_sha256
        ) != manifest.manifest_sha256:
            raise wire.damaged(path, "its bytes do not match the stored hash")
        check_graph(file, manifest_at, path)
    golden = unpack_golden(props[GOLDEN_KEY], manifest, path) if GOLDEN_KEY in props else None
    return Artifact(path, manifest, golden, attachments, signed_by, identity, manifest_at)


def _as_trust(trust: Trust | Path | str) -> Trust:
    from kd_edge.artifact.signature import Trust  # imported here because most loads check no signature

    return trust if isinstance(trust, Trust) else Trust(trust)


def _check_signature(file: BinaryIO, path: Path, trust: Trust) -> tuple[str, dict[int, str]]:
    from kd_edge.artifact.signed import signer  # imported here because most loads check no signature

    return signer(file, path, trust)


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _text_hash(text: str, stored: str) -> str:
    """``own_hash`` of the manifest text as written, so that fields added by later releases do not change the hash."""
    return hashlib.sha256(text.replace(f'"manifest_sha256":"{stored}"', '"manifest_sha256":""').encode()).hexdigest()


def _parse_manifest(text: str, path: Path) -> Manifest:
    try:
        if len(text) > MANIFEST_BYTES:
            raise ValueError(f"{len(text):,} bytes, more than {MANIFEST_BYTES:,}")
        version = read_json(text).get("format")
        if type(version) is not int or version != FORMAT:  # True is an int, too
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
    """Hash the first ``length`` bytes."""
    return sha256s(file, [length])[length]
