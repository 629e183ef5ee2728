"""Put signatures into artifacts and beside them, and find them there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from kd_edge.artifact import wire
from kd_edge.artifact.file import load, reading, sha256s
from kd_edge.artifact.signature import BUNDLE_BYTES, SigningKey, Trust
from kd_edge.errors import ArtifactError
from kd_edge.files import replacing
from kd_edge.reading import read_bytes


def sign(path: Path, key: SigningKey) -> None:
    """Sign an artifact: the signature is its last field, in the place of an older one.

    Raises:
        ArtifactError: It is no artifact, or cannot be written; it is left as it was.
    """
    load(path)
    path = path.resolve()  # of a link the file it leads to
    with reading(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        end = wire.ends(file, path).end
        file.seek(0)
        content = file.read(end)
    bundle = key.sign(hashlib.sha256(content).hexdigest(), path.name)
    with replacing(path, ArtifactError) as target:
        target.write(content)
        target.write(wire.signature_field(bundle))
    path.chmod(mode & 0o777)


def sign_beside(path: Path, key: SigningKey, target: Path) -> None:
    """Write a signature of a file as it lies there; the reference tool ``model_signing`` checks it.

    Raises:
        ArtifactError: It cannot be read or written, or what is there already is no signature.
    """
    if target.exists() and not _is_bundle(target):
        raise ArtifactError(f"{target} is there already, and no signature", "a new file", "choose another --bundle")
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest = sha256s(file, [size])[size]
    with replacing(target, ArtifactError) as out:
        out.write(key.sign(digest, path.name))


def _is_bundle(path: Path) -> bool:
    try:
        return b"sigstore.bundle" in read_bytes(path, BUNDLE_BYTES)
    except OSError:
        return False


def beside(path: Path) -> Path:
    """Where a signature beside a file is looked for."""
    return path.with_name(f"{path.name}.sig")


def signer(file: BinaryIO, path: Path, trust: Trust) -> tuple[str, dict[int, str]]:
    """Check a file's signature.

    Returns:
        Fingerprint of the trusted key that it was signed with, and hashes of the file up to some positions.
    """
    ends = wire.ends(file, path)
    if ends.signature is None:
        bundle = _signature_beside(path)
    elif ends.signature.length > BUNDLE_BYTES:
        raise wire.damaged(path, f"its signature has {ends.signature.length:,} bytes")
    else:
        file.seek(ends.signature.start)
        bundle = file.read(ends.signature.length)
    digests = sha256s(file, [ends.last, ends.end])
    return trust.check(bundle, digests[ends.end], str(path)).fingerprint, digests


def _signature_beside(path: Path) -> bytes:
    try:
        return read_bytes(beside(path), BUNDLE_BYTES)
    except OSError as error:
        raise ArtifactError(
            f"{path} is not signed, and there is no {beside(path).name} beside it",
            "a signature by a trusted key",
            f"kd-edge sign {path.name} --key KEY, or leave out --trust",
        ) from error
