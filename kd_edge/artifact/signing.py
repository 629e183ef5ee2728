"""Sign artifacts, inside the file or in a detached signature."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from kd_edge.artifact import wire
from kd_edge.artifact.access import reading, sha256s
from kd_edge.artifact.file import load
from kd_edge.artifact.signature import BUNDLE_BYTES, SigningKey
from kd_edge.errors import ArtifactError
from kd_edge.files import replacing
from kd_edge.reading import read_bytes


def sign(path: Path, key: SigningKey) -> None:
    """Sign an artifact; the signature becomes its last field and replaces an older one.

    Raises:
        ArtifactError: The file is not an artifact or cannot be written; it is left unchanged.
    """
    load(path)
    path = path.resolve()  # replace the target of a symbolic link, not the link
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
    """Write a detached signature of the whole file, which the reference tool ``model_signing`` can verify.

    Raises:
        ArtifactError: The file cannot be read, or ``target`` cannot be written or exists and is not a signature.
    """
    if target.exists() and not _is_bundle(target):
        raise ArtifactError(f"{target} exists and is not a signature", "a new file", "choose another --bundle")
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest = sha256s(file, [size])[size]
    with replacing(target, ArtifactError, option="--bundle") as out:
        out.write(key.sign(digest, path.name))


def _is_bundle(path: Path) -> bool:
    try:
        return b"sigstore.bundle" in read_bytes(path, BUNDLE_BYTES)
    except OSError:
        return False
