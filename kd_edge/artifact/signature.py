"""Key-based, offline signatures in the format of the OpenSSF Model Signing specification v1.0.

A signature is a Sigstore bundle (JSON) with a DSSE envelope around an in-toto statement that names the file's SHA-256;
the key is on the curve P-256. A signature inside an artifact covers all bytes before it. A detached signature covers
the whole file, and the reference tool ``model_signing verify key`` can verify it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from kd_edge.errors import ArtifactError, ConfigError, printable
from kd_edge.files import replacing
from kd_edge.packages import import_extra
from kd_edge.reading import is_file, read_bytes, read_json

log = logging.getLogger("kd_edge.artifact")

BUNDLE_BYTES = 64_000
"""Upper limit for the size of a bundle; the bundle of one file takes 1.2 kB."""
KEY_BYTES = 64_000
MOST_KEYS = 256
REVOKED = "revoked"
"""Folder next to the public keys; files signed with a key in it are refused."""

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_WHOLE_FILE = "."
"""Name of the only resource of a single-file model."""
_OPEN = ConfigDict(extra="ignore", frozen=True)  # the specification may gain fields


class _Hint(BaseModel):
    model_config = _OPEN
    hint: str = Field(max_length=200)


class _Material(BaseModel):
    model_config = _OPEN
    publicKey: _Hint


class _Signature(BaseModel):
    model_config = _OPEN
    sig: str = Field(max_length=2000)


class _Envelope(BaseModel):
    model_config = _OPEN
    payload: str = Field(max_length=BUNDLE_BYTES)
    payloadType: Literal["application/vnd.in-toto+json"]
    signatures: list[_Signature] = Field(min_length=1, max_length=1)


class _Bundle(BaseModel):
    model_config = _OPEN
    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verificationMaterial: _Material
    dsseEnvelope: _Envelope


class _Digest(BaseModel):
    model_config = _OPEN
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Subject(BaseModel):
    model_config = _OPEN
    name: str = Field(max_length=1000)
    digest: _Digest


class _Resource(BaseModel):
    model_config = _OPEN
    name: str = Field(max_length=1000)
    algorithm: Literal["sha256"]
    digest: str = Field(pattern="^[0-9a-f]{64}$")


class _Serialization(BaseModel):
    model_config = _OPEN
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Predicate(BaseModel):
    model_config = _OPEN
    serialization: _Serialization
    resources: list[_Resource] = Field(min_length=1, max_length=1)


class _Statement(BaseModel):
    model_config = _OPEN
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicateType: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate


class PublicKey(NamedTuple):
    """A key for verifying signatures.

    Attributes:
        fingerprint: SHA-256 of its PEM text; a bundle refers to its key by this value.
        path: The file it was read from.
        key: The key object of ``cryptography``.
    """

    fingerprint: str
    path: Path
    key: Any


class Trust:
    """The public keys whose signatures are accepted.

    Args:
        paths: Public keys in PEM, or folders of them (``*.pem``, ``*.pub``). Files signed with a key in the folder
            ``revoked`` next to the keys are refused.

    Raises:
        ConfigError: There is no key, or a key is not on the curve P-256.
        MissingExtraError: ``cryptography`` is not installed.
    """

    def __init__(self, *paths: Path | str) -> None:
        if "" in paths:
            raise _key_error("an empty key path", "a public key in PEM, or a folder of them")
        locations = [Path(path) for path in paths]
        self._keys = _load_keys([file for path in locations for file in _key_files(path)])
        folders = dict.fromkeys(path if _is_folder(path) else path.parent for path in locations)
        self._revoked = _load_keys([file for folder in folders for file in _revoked_files(folder / REVOKED)])

    def knows(self, fingerprint: str) -> bool:
        """Whether a key is trusted and not revoked."""
        return fingerprint in self._keys and fingerprint not in self._revoked

    def check(self, bundle: bytes, sha256: str, what: str) -> PublicKey:
        """Verify a signature.

        Args:
            bundle: The Sigstore bundle.
            sha256: Hash of the bytes that the signature must cover.
            what: Name of the file, for error messages.

        Returns:
            The key that made the signature.

        Raises:
            ArtifactError: The signature is invalid, does not cover these bytes, or was made with an unknown or revoked
                key.
        """
        try:
            parsed = _Bundle.model_validate(read_json(bundle.decode()))
            hint = parsed.verificationMaterial.publicKey.hint
            payload = base64.b64decode(parsed.dsseEnvelope.payload, validate=True)
            signature = base64.b64decode(parsed.dsseEnvelope.signatures[0].sig, validate=True)
        except (ValueError, binascii.Error) as error:
            raise _signature_error(
                f"{what} has a signature that cannot be read", "a Sigstore bundle v0.3 signed with a key"
            ) from error
        if hint in self._revoked:
            by = f"the key {hint[:16]} ({self._revoked[hint].path.name})"
            raise _signature_error(f"{what} is signed with {by}, which was revoked", "a valid key")
        if hint not in self._keys:
            known = ", ".join(f"{key.fingerprint[:16]} ({key.path.name})" for key in self._keys.values())
            raise _signature_error(f"{what} is signed with the key {hint[:16]}", f"one of {known}")
        if not _is_valid(self._keys[hint].key, signature, pae(payload)):
            raise _signature_error(
                f"{what} has a signature that was not made with the key it names", f"one by {hint[:16]}"
            )
        if (fault := _statement_fault(payload, sha256)) is not None:
            raise _signature_error(f"{what} {fault}", "the file that was signed")
        return self._keys[hint]


class SigningKey:
    """A private key.

    Args:
        path: File with an unencrypted PEM key on the curve P-256.

    Raises:
        ConfigError: The file is not such a key, or cannot be read.
        MissingExtraError: ``cryptography`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        serialization = import_extra("cryptography.hazmat.primitives.serialization", "sign")
        content = _read_key(path)
        try:
            self._key: Any = serialization.load_pem_private_key(content, password=None)
        except TypeError as error:
            fix = "openssl ec -in KEY -out PLAIN"
            raise _key_error(f"{path} is encrypted", "a private key without a password", fix) from error
        except Exception as error:  # cryptography raises many types
            found = "a public key" if b"BEGIN PUBLIC KEY" in content else "no private key in PEM"
            raise _key_error(f"{path} is {found}", "the private key") from error
        _check_curve(self._key, path)
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            log.warning("%s can be read by other users: run chmod 600 on it", path)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key's PEM text."""
        return _fingerprint(self._key.public_key())

    def sign(self, sha256: str, name: str) -> bytes:
        """Sign a file.

        Args:
            sha256: Hash of the file.
            name: Name of the file, for readers of the bundle.

        Returns:
            A Sigstore bundle.
        """
        payload = json.dumps(_statement(sha256, name), separators=(",", ":")).encode()
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(_sign_bytes(self._key, pae(payload))).decode(), "keyid": ""}],
        }
        material = {"publicKey": {"hint": self.fingerprint}, "tlogEntries": []}
        bundle = {"mediaType": _BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
        return json.dumps(bundle, separators=(",", ":")).encode()


def new_keys(path: Path) -> Path:
    """Create a key pair: the private key in ``path``, readable by its owner only, the public key next to it (``.pub``).

    Returns:
        Path of the public key.

    Raises:
        ConfigError: One of the files exists already, or cannot be written.
        MissingExtraError: ``cryptography`` is not installed.
    """
    serialization = import_extra("cryptography.hazmat.primitives.serialization", "sign")
    curves = import_extra("cryptography.hazmat.primitives.asymmetric.ec", "sign")
    public = path.with_suffix(".pub")
    if public == path:
        raise _key_error(
            f"{path} has the suffix of a public key", "a suffix other than .pub", "kd-edge sign --new-key robot.key"
        )
    for target in (path, public):
        if target.exists():
            raise _key_error(f"{target} exists already", "a new name", "choose another one")
    key = curves.generate_private_key(curves.SECP256R1())
    pem, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    private = key.private_bytes(encoding, pem, serialization.NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
    except OSError as error:
        raise _key_error(f"{path} cannot be written ({error.strerror})", "a writable folder") from error
    with replacing(public, ConfigError) as file:
        file.write(_pem(key.public_key()))
    return public


def pae(payload: bytes) -> bytes:
    """Return the bytes that a DSSE envelope's signature covers: payload type and payload, with their lengths."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _statement(sha256: str, name: str) -> dict[str, Any]:
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root_hash(sha256)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": _WHOLE_FILE, "algorithm": "sha256", "digest": sha256}],
        },
    }


def _root_hash(sha256: str) -> str:
    """Hash of the concatenated hashes of all resources, of which there is one."""
    return hashlib.sha256(bytes.fromhex(sha256)).hexdigest()


def _statement_fault(payload: bytes, sha256: str) -> str | None:
    """Describe why a statement does not attest the given hash; None if it does."""
    try:
        statement = _Statement.model_validate(read_json(payload.decode()))
    except ValueError:
        return "has a signature that does not cover a single file (Model Signing v1.0)"
    (resource,), (subject,) = statement.predicate.resources, statement.subject
    if resource.name != _WHOLE_FILE:
        return f"has a signature of the file '{printable(resource.name[:100])}' in a folder"
    if subject.digest.sha256 != _root_hash(resource.digest):
        return "has a signature that contradicts itself"
    return None if resource.digest == sha256 else "has changed since it was signed"


def _is_valid(key: Any, signature: bytes, content: bytes) -> bool:
    ec = import_extra("cryptography.hazmat.primitives.asymmetric.ec", "sign")
    hashes = import_extra("cryptography.hazmat.primitives.hashes", "sign")
    invalid = import_extra("cryptography.exceptions", "sign").InvalidSignature
    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except invalid:
        return False
    return True


def _sign_bytes(key: Any, content: bytes) -> bytes:
    ec = import_extra("cryptography.hazmat.primitives.asymmetric.ec", "sign")
    hashes = import_extra("cryptography.hazmat.primitives.hashes", "sign")
    signature: bytes = key.sign(content, ec.ECDSA(hashes.SHA256()))
    return signature


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - never raises, for any input


def _revoked_files(folder: Path) -> list[Path]:
    """All files in a folder of revoked keys: a file that is not a key is an error there, never ignored."""
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _key_error(f"{folder} cannot be read ({error.strerror})", "a folder of revoked keys") from error
    if len(files) > MOST_KEYS:
        raise _key_error(f"{folder} contains {len(files)} keys", f"at most {MOST_KEYS} revoked keys")
    return files


def _key_files(path: Path) -> list[Path]:
    if not _is_folder(path):
        return [path]
    try:
        files = sorted(file for file in path.iterdir() if file.suffix in (".pem", ".pub") and is_file(file))
    except OSError as error:
        raise _key_error(f"{path} cannot be read ({error.strerror})", "a folder of public keys") from error
    if not 0 < len(files) <= MOST_KEYS:
        raise _key_error(f"{path} contains {len(files)} keys", f"1 to {MOST_KEYS} public keys (*.pem, *.pub)")
    return files


def _load_keys(files: Sequence[Path]) -> dict[str, PublicKey]:
    serialization = import_extra("cryptography.hazmat.primitives.serialization", "sign")
    keys = {}
    for path in files:
        content = _read_key(path)
        try:
            key = serialization.load_pem_public_key(content)
        except Exception as error:  # cryptography raises many types
            found = "a private key" if b"PRIVATE KEY" in content else "no public key in PEM"
            raise _key_error(f"{path} is {found}", "the public key: a robot needs no private key") from error
        _check_curve(key, path)
        fingerprint = _fingerprint(key)
        keys[fingerprint] = PublicKey(fingerprint, path, key)
    return keys


def _read_key(path: Path) -> bytes:
    try:
        return read_bytes(path, KEY_BYTES)
    except OSError as error:
        raise _key_error(f"{path} cannot be read ({error.strerror})", "a key in PEM") from error


def _check_curve(key: Any, path: Path) -> None:
    curve = getattr(getattr(key, "curve", None), "name", type(key).__name__.strip("_"))
    if curve != "secp256r1":
        raise _key_error(f"{path} is a {curve} key", "an elliptic-curve key on P-256 (prime256v1)")


def _fingerprint(key: Any) -> str:
    return hashlib.sha256(_pem(key)).hexdigest()


def _pem(key: Any) -> bytes:
    serialization = import_extra("cryptography.hazmat.primitives.serialization", "sign")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    content: bytes = key.public_bytes(serialization.Encoding.PEM, form)
    return content


def _key_error(found: str, expected: str, fix: str = "create a pair: kd-edge sign --new-key robot.key") -> ConfigError:
    return ConfigError(found, expected, fix)


def _signature_error(found: str, expected: str) -> ArtifactError:
    return ArtifactError(found, expected, "get the file from whoever signs for this robot, or correct --trust")
