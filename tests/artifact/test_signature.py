"""Signatures: the format's bytes, what they cover, whose they are, and that nothing else is looked at before them.

``vectors`` was made once by the reference tool (model-signing 1.1.1), whose private key is gone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import SigningKey, Trust, beside, new_keys, sign, sign_beside, signature, wire
from kd_edge.errors import ArtifactError, ConfigError, MissingExtraError
from kd_edge.runtime import Recognizer, stream

VECTORS = Path(__file__).parent / "vectors"
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization", reason="no cryptography")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``robot.key`` and ``robot.pub``."""
    folder = tmp_path_factory.mktemp("keys")
    new_keys(folder / "robot.key")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(artifact.BUNDLED, tmp_path / "student.onnx"))


@pytest.fixture
def signed(model: Path, keys: Path) -> Path:
    sign(model, SigningKey(keys / "robot.key"))
    return model


def vector() -> tuple[bytes, str]:
    content = (VECTORS / "model.bin").read_bytes()
    return (VECTORS / "model.bin.sig").read_bytes(), hashlib.sha256(content).hexdigest()


def test_what_a_signature_covers_is_the_specifications() -> None:
    """DSSE v1: ``DSSEv1 SP LEN(type) SP type SP LEN(payload) SP payload``."""
    assert signature.pae(b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
    assert signature.pae(b"") == b"DSSEv1 28 application/vnd.in-toto+json 0 "


def test_the_reference_tools_signature_is_accepted() -> None:
    bundle, sha256 = vector()
    key = Trust(VECTORS / "model.pub").check(bundle, sha256, "model.bin")
    pem = (VECTORS / "model.pub").read_bytes()
    assert key.fingerprint == hashlib.sha256(pem).hexdigest()
    assert key.path == VECTORS / "model.pub"


def test_of_a_file_in_a_folder_it_is_not() -> None:
    _, sha256 = vector()
    with pytest.raises(ArtifactError, match=r"a signature of the file 'weights\.bin' in a folder"):
        Trust(VECTORS / "model.pub").check((VECTORS / "folder.sig").read_bytes(), sha256, "model.bin")


def test_our_bundle_has_the_formats_fields(keys: Path) -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    bundle = json.loads(SigningKey(keys / "robot.key").sign(sha256, "x.onnx"))
    fingerprint = hashlib.sha256((keys / "robot.pub").read_bytes()).hexdigest()
    envelope = bundle["dsseEnvelope"]
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"] == {"publicKey": {"hint": fingerprint}, "tlogEntries": []}
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert json.loads(base64.b64decode(envelope["payload"])) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "x.onnx", "digest": {"sha256": hashlib.sha256(hashlib.sha256(b"x").digest()).hexdigest()}}
        ],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": ".", "algorithm": "sha256", "digest": sha256}],
        },
    }


def test_a_signed_artifact_is_the_same_model(signed: Path, keys: Path) -> None:
    for trust in (keys / "robot.pub", Trust(keys / "robot.pub"), str(keys)):
        loaded = artifact.load(signed, trust=trust)
        assert loaded.signed_by == hashlib.sha256((keys / "robot.pub").read_bytes()).hexdigest()
    plain = artifact.load(artifact.BUNDLED)
    assert (loaded.manifest, loaded.attachments) == (plain.manifest, plain.attachments)
    assert artifact.load(signed).signed_by == ""
    frame = np.full((96, 96), 7, np.uint8)
    with Recognizer.load(signed, trust=keys / "robot.pub") as one, Recognizer.load(artifact.BUNDLED) as other:
        np.testing.assert_array_equal(one.push(frame, 0).probabilities, other.push(frame, 0).probabilities)


def test_onnx_tools_still_read_it(signed: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert onnx.load(signed).graph == onnx.load(artifact.BUNDLED).graph


def test_signing_again_takes_the_older_ones_place(signed: Path, keys: Path) -> None:
    before = signed.stat().st_size
    new_keys(signed.parent / "second.key")
    sign(signed, SigningKey(signed.parent / "second.key"))
    assert abs(signed.stat().st_size - before) < 20  # a signature has 70 to 72 bytes
    artifact.load(signed, trust=signed.parent / "second.pub")
    with pytest.raises(
        ArtifactError, match=r"is signed with the key [0-9a-f]{16}\. Expected one of [0-9a-f]{16} \(rob"
    ):
        artifact.load(signed, trust=keys / "robot.pub")


def test_another_manifest_is_another_file(signed: Path, keys: Path) -> None:
    loaded = artifact.load(signed)
    artifact.rewrite(loaded, loaded.manifest.model_copy(update={"name": "other"}), signed)
    assert artifact.load(signed).manifest.name == "other"
    with pytest.raises(ArtifactError, match="is not signed"):
        artifact.load(signed, trust=keys / "robot.pub")


def test_one_beside_the_file_counts_where_it_carries_none(model: Path, keys: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"student\.onnx is not signed, and there is no student\.onnx\.sig next to it"
    ):
        artifact.load(model, trust=keys)
    sign_beside(model, SigningKey(keys / "robot.key"), beside(model))
    assert artifact.load(model, trust=keys).signed_by
    beside(model).write_bytes(b"x" * 100_000)
    with pytest.raises(ArtifactError, match="is not signed"):
        artifact.load(model, trust=keys)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_byte_that_changed_anywhere_is_told_before_anything_is_read(
    signed: Path, keys: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(signed.read_bytes())
    with signed.open("rb") as file:
        end = wire.ends(file, signed).end
    content[max(20, int(share * end) - 1)] ^= 1  # the length of a field may be hit: then the file cannot be walked
    signed.write_bytes(content)
    monkeypatch.setattr(wire, "layout", None)  # nothing is parsed
    with pytest.raises(ArtifactError, match=r"has changed since it was signed|is truncated|is not signed"):
        artifact.load(signed, trust=keys)


Change = Callable[[dict[str, Any]], object]


def payload_of(bundle: dict[str, Any], change: Change) -> None:
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b.update(mediaType="application/json"), "cannot be read"),
        (lambda b: b.pop("dsseEnvelope"), "cannot be read"),
        (lambda b: b["dsseEnvelope"].update(payload="*"), "cannot be read"),
        (lambda b: b["dsseEnvelope"].update(payloadType="text/plain"), "cannot be read"),
        (lambda b: b["dsseEnvelope"].update(signatures=[]), "cannot be read"),
        (lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0]), "cannot be read"),
        (lambda b: b["dsseEnvelope"]["signatures"][0].update(sig=""), "not made with the key it names"),
        (lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="AAAA"), "not made with the key it names"),
        (lambda b: b["verificationMaterial"]["publicKey"].update(hint=""), "is signed with the key "),
        (lambda b: b["verificationMaterial"]["publicKey"].update(hint="\x1b[31m" * 9), "is signed with the key "),
        (lambda b: payload_of(b, lambda s: s["subject"][0].update(name="evil")), "not made with the key it names"),
    ],
)
def test_a_signature_that_was_touched_is_refused(change: Change, why: str) -> None:
    bundle, sha256 = vector()
    changed = json.loads(bundle)
    change(changed)
    with pytest.raises(ArtifactError, match=why) as caught:
        Trust(VECTORS / "model.pub").check(json.dumps(changed).encode(), sha256, "model.bin")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s["predicate"]["resources"][0].update(digest="0" * 64), "contradicts itself"),
        (lambda s: s["subject"][0]["digest"].update(sha256="0" * 64), "contradicts itself"),
        (lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]), "does not cover a single file"),
        (lambda s: s.update(predicateType="https://example.com"), "does not cover a single file"),
        (lambda s: s["predicate"]["serialization"].update(method="shards"), "does not cover a single file"),
        (lambda s: s["predicate"]["serialization"].update(hash_type="blake3"), "does not cover a single file"),
        (lambda s: s["predicate"].update(later="x"), None),  # the specification may gain fields
    ],
)
def test_what_a_right_key_signed_must_be_a_statement_about_this_file(
    keys: Path, monkeypatch: pytest.MonkeyPatch, change: Change, why: str | None
) -> None:
    statement = signature._statement

    def changed(sha256: str, name: str) -> dict[str, Any]:
        made = statement(sha256, name)
        change(made)
        return made

    monkeypatch.setattr(signature, "_statement", changed)
    sha256 = hashlib.sha256(b"x").hexdigest()
    bundle = SigningKey(keys / "robot.key").sign(sha256, "x")
    if why is None:
        assert Trust(keys).check(bundle, sha256, "x")
        return
    with pytest.raises(ArtifactError, match=why):
        Trust(keys).check(bundle, sha256, "x")


def test_a_revoked_key_is_told(signed: Path, keys: Path, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    (trusted / "revoked").mkdir(parents=True)
    new_keys(tmp_path / "new.key")
    shutil.copy(tmp_path / "new.pub", trusted)
    shutil.copy(keys / "robot.pub", trusted / "old.pub")
    artifact.load(signed, trust=trusted)
    (trusted / "old.pub").rename(trusted / "revoked" / "old.pub")
    for trust in (trusted, trusted / "new.pub"):
        with pytest.raises(ArtifactError, match=r"with the key [0-9a-f]{16} \(old\.pub\), which was revoked"):
            artifact.load(signed, trust=trust)
    shutil.copy(keys / "robot.pub", trusted / "old.pub")  # in both: revoked
    with pytest.raises(ArtifactError, match="which was revoked"):
        artifact.load(signed, trust=trusted)


def test_what_is_revoked_must_be_a_key(signed: Path, keys: Path, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    (trusted / "revoked").mkdir(parents=True)
    shutil.copy(keys / "robot.pub", trusted)
    (trusted / "revoked" / "gone.pub").symlink_to(tmp_path / "nowhere.pub")
    with pytest.raises(ConfigError, match="No such file"):
        artifact.load(signed, trust=trusted)
    (trusted / "revoked" / "gone.pub").unlink()
    shutil.copy(keys / "robot.pub", trusted / "revoked" / "old.PUB")
    with pytest.raises(ArtifactError, match="which was revoked"):
        artifact.load(signed, trust=trusted)


def test_no_revoked_key_is_left_out_silently(keys: Path, tmp_path: Path) -> None:
    revoked = tmp_path / "trusted" / "revoked"
    revoked.mkdir(parents=True)
    shutil.copy(keys / "robot.pub", tmp_path / "trusted" / "robot.pub")
    for number in range(257):
        (revoked / f"{number:03}.pub").touch()
    with pytest.raises(ConfigError, match=r"contains 257 keys\. Expected at most 256 revoked keys"):
        Trust(tmp_path / "trusted")


def test_a_key_that_cannot_be_read_is_not_the_models_fault(signed: Path) -> None:
    with pytest.raises(ConfigError, match="File name too long"):
        artifact.load(signed, trust="a" * 300)


def test_a_model_that_is_loaded_already_is_checked_again(signed: Path, keys: Path, tmp_path: Path) -> None:
    new_keys(tmp_path / "b.key")
    loaded = artifact.load(signed, trust=keys)
    with pytest.raises(ArtifactError, match="is signed with the key"):
        Recognizer.load(loaded, trust=tmp_path / "b.pub")
    camera = "synthetic:?realtime=false&frames=3"
    with Recognizer.load(signed, trust=keys) as trusted, Recognizer.load(signed) as unchecked:
        with stream(model=trusted, camera=camera, trust=keys) as labels:
            assert len(list(labels)) == 3
        for model in (trusted, unchecked):
            with (
                pytest.raises(ArtifactError, match="was not loaded with a signature that"),
                stream(model=model, camera=camera, trust=tmp_path / "b.pub"),
            ):
                pass
    with pytest.raises((ConfigError, ArtifactError)), stream(model=signed, camera=camera, trust=""):
        pass


def test_signing_follows_links_and_keeps_modes(model: Path, keys: Path) -> None:
    model.chmod(0o600)
    link = model.with_name("link.onnx")
    link.symlink_to(model)
    sign(link, SigningKey(keys / "robot.key"))
    assert link.is_symlink()
    assert stat.S_IMODE(model.stat().st_mode) == 0o600
    assert artifact.load(model, trust=keys).signed_by


def test_nothing_but_a_signature_is_overwritten_by_one(model: Path, keys: Path, tmp_path: Path) -> None:
    key = SigningKey(keys / "robot.key")
    for target in (model, keys / "robot.key"):
        before = target.read_bytes()
        with pytest.raises(ArtifactError, match="exists and is not a signature"):
            sign_beside(model, key, target)
        assert target.read_bytes() == before
    for _ in range(2):
        sign_beside(model, key, beside(model))
    with pytest.raises(ConfigError, match="has the suffix of a public key"):
        new_keys(tmp_path / "robot.pub")


def test_a_plan_is_built_from_the_bytes_that_were_verified(signed: Path, keys: Path) -> None:
    loaded = artifact.load(signed, trust=keys)
    assert loaded.content() == signed.read_bytes()
    content = bytearray(signed.read_bytes())
    content[1000] ^= 1
    signed.write_bytes(content)
    with pytest.raises(ArtifactError, match="has changed since it was loaded"):
        loaded.content()


def pem(private: Any, password: bytes | None = None) -> bytes:
    kept = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept)


def test_keys_that_are_none_are_told(keys: Path, tmp_path: Path) -> None:
    files = {
        "rsa": pem(rsa.generate_private_key(65537, 2048)),
        "p384": pem(ec.generate_private_key(ec.SECP384R1())),
        "locked": pem(ec.generate_private_key(ec.SECP256R1()), b"word"),
        "text": b"hello",
        "long": b"x" * 100_000,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name, why in (
        ("rsa", "is a RSAPrivateKey key"), ("p384", "is a secp384r1 key"), ("locked", "is encrypted"),
        ("text", "no private key in PEM"), ("long", "cannot be read"), ("absent", "No such file"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=why):
            SigningKey(tmp_path / name)
    with pytest.raises(ConfigError, match="is a public key"):
        SigningKey(keys / "robot.pub")
    with pytest.raises(ConfigError, match="is a private key"):
        Trust(keys / "robot.key")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="contains 0 keys"):
        Trust(tmp_path / "empty")


def test_a_pair_is_made_once_and_the_private_key_is_its_owners(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert new_keys(tmp_path / "robot.key") == tmp_path / "robot.pub"
    assert stat.S_IMODE((tmp_path / "robot.key").stat().st_mode) == 0o600
    before = (tmp_path / "robot.key").read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        new_keys(tmp_path / "robot.key")
    assert (tmp_path / "robot.key").read_bytes() == before
    SigningKey(tmp_path / "robot.key")
    assert caplog.messages == []
    (tmp_path / "robot.key").chmod(0o644)
    SigningKey(tmp_path / "robot.key")
    assert "can be read by other users" in caplog.text


def test_a_file_that_is_no_artifact_is_not_signed(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"hello")
    with pytest.raises(ArtifactError, match="is not an ONNX model"):
        sign(path, SigningKey(keys / "robot.key"))
    assert path.read_bytes() == b"hello"


def test_without_cryptography_its_extra_is_named(signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        raise MissingExtraError(f"module '{module}' is not installed", f"the extra [{extra}]", "pip install")

    monkeypatch.setattr(signature, "import_extra", absent)
    with pytest.raises(MissingExtraError, match=r"\[sign\]"):
        artifact.load(signed, trust=keys)
    artifact.load(signed)  # and without --trust it is not needed


def test_a_file_that_is_replaced_after_it_was_verified_is_not_run(signed: Path, keys: Path) -> None:
    loaded = artifact.load(signed, trust=keys)
    other = signed.with_name("other.onnx")
    shutil.copy(artifact.BUNDLED, other)
    other.replace(signed)
    with pytest.raises(ArtifactError, match="has changed since it was loaded"):
        Recognizer.load(loaded)
