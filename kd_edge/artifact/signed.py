"""Find the signature of an artifact, inside the file or next to it, and verify it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from kd_edge.artifact import wire
from kd_edge.artifact.access import sha256s
from kd_edge.artifact.signature import BUNDLE_BYTES, Trust
from kd_edge.errors import ArtifactError
from kd_edge.reading import read_bytes


def beside(path: Path) -> Path:
    """Return the path of a file's detached signature (``.sig``)."""
    return path.with_name(f"{path.name}.sig")


def signer(file: BinaryIO, path: Path, trust: Trust) -> tuple[str, dict[int, str]]:
    """Verify a file's signature.

    Returns:
        Fingerprint of the trusted key that signed the file, and hashes of the file up to the positions read (see
        ``sha256s``).
    """
    ends = wire.ends(file, path)
    if ends.signature is None:
        bundle = _read_detached(path)
    elif ends.signature.length > BUNDLE_BYTES:
        raise wire.damaged(path, f"its signature has {ends.signature.length:,} bytes")
    else:
        file.seek(ends.signature.start)
        bundle = file.read(ends.signature.length)
    digests = sha256s(file, [ends.last, ends.end])
    return trust.check(bundle, digests[ends.end], str(path)).fingerprint, digests


def _read_detached(path: Path) -> bytes:
    try:
        return read_bytes(beside(path), BUNDLE_BYTES)
    except OSError as error:
        raise ArtifactError(
            f"{path} is not signed, and there is no {beside(path).name} next to it",
            "a signature by a trusted key",
            f"kd-edge sign {path.name} --key KEY, or leave out --trust",
        ) from error
