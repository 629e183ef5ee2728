import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from pydantic import ValidationError

from kd_edge import artifact
from kd_edge.artifact import GoldenClip, Manifest
from kd_edge.errors import ArtifactError
from kd_edge.health import FeatureReference, PictureBounds
from kd_edge.preprocess import Preprocess


def graph_bytes() -> bytes:
    value = oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = oh.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = oh.make_graph([oh.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    return oh.make_model(graph, ir_version=10, opset_imports=[oh.make_opsetid("", 20)]).SerializeToString()


def manifest() -> Manifest:
    return Manifest(
        name="test",
        labels=("sit", "stand"),
        modality="nir",
        band="nir",
        dtype="uint16",
        value_unit="grey level",
        value_range=(0, 65535),
        preprocess=Preprocess(resize_px=16, input_px=16),
        segments=4,
        clip_seconds=2.0,
        feature_size=3,
        temporal="tsn",
    )


def golden(shape: tuple[int, ...] = (4, 16, 20), dtype: type = np.uint16) -> GoldenClip:
    frames = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(dtype)
    return GoldenClip(frames, np.arange(shape[0], dtype=np.int64), np.array([0.5, -1], np.float32), 1e-3)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "student.onnx"
    artifact.write(graph_bytes(), manifest(), golden(), path)
    return path


def test_the_bundled_one_goes_by_its_name(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert artifact.load("bundled").path == artifact.BUNDLED
    written.rename(tmp_path / "bundled")
    assert artifact.load("bundled").path == Path("bundled"), "a file of that name comes first"


@pytest.mark.parametrize("value", [-1.0, 1e308, float("inf"), float("nan")])
def test_errors_of_segments_are_bounded(written: Path, value: float) -> None:
    manifest = artifact.load(written).manifest.model_dump() | {"segment_error_ms": value}
    with pytest.raises(ValidationError, match="segment_error_ms"):
        Manifest.model_validate(manifest)


def test_round_trip(written: Path) -> None:
    loaded = artifact.load(written)
    assert loaded.manifest.model_copy(update={"sha256": "", "manifest_sha256": ""}) == manifest()
    assert loaded.manifest.spacing_ns == 500_000_000
    assert loaded.golden is not None
    np.testing.assert_array_equal(loaded.golden.frames, golden().frames)
    assert loaded.golden.frames.dtype == np.uint16
    assert loaded.golden.logits.tolist() == [0.5, -1.0]


def test_onnx_itself_reads_the_file_and_the_manifest_is_last(written: Path) -> None:
    model = onnx.load(written)
    onnx.checker.check_model(model)
    keys = [prop.key for prop in model.metadata_props]
    assert keys == ["kd_edge_golden", "kd_edge"]
    assert Manifest.model_validate_json(model.metadata_props[1].value).labels == ("sit", "stand")


def test_hash_covers_all_bytes_before_the_manifest(written: Path) -> None:
    loaded = artifact.load(written)
    data = written.read_bytes()
    start = data.rindex(b"\x0a\x07kd_edge") - 3  # tag and length of the entry come first
    candidates = {hashlib.sha256(data[:at]).hexdigest() for at in range(start - 3, start + 3)}
    assert loaded.manifest.sha256 in candidates


def test_every_damaged_byte_is_noticed(written: Path) -> None:
    good = written.read_bytes()
    for at in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[at] ^= 0x41
        written.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            artifact.load(written)


def test_a_changed_label_is_noticed(written: Path) -> None:
    written.write_bytes(written.read_bytes().replace(b'"stand"', b'"stant"'))
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.load(written)


@pytest.mark.parametrize("extra", [b"\x00", graph_bytes()], ids=["byte", "second-graph"])
def test_nothing_may_follow_the_manifest(written: Path, extra: bytes) -> None:
    written.write_bytes(written.read_bytes() + extra)
    with pytest.raises(ArtifactError, match=r"is damaged|is truncated"):
        artifact.load(written)


def test_every_truncation_is_noticed(written: Path) -> None:
    good = written.read_bytes()
    for length in range(0, len(good) - 1, 53):
        written.write_bytes(good[:length])
        with pytest.raises(ArtifactError):
            artifact.load(written)
    written.write_bytes(good[:-10])
    with pytest.raises(ArtifactError, match="is truncated"):
        artifact.load(written)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is not an ONNX model"),
        (b"#!/bin/sh\necho hello\n", "is not an ONNX model"),
        (graph_bytes(), "without a kd-edge manifest"),
    ],
    ids=["empty", "png", "text", "plain-onnx"],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        artifact.load(path)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no file .*gone\.onnx"):
        artifact.load(tmp_path / "gone.onnx")


def test_unknown_format(tmp_path: Path) -> None:
    path = tmp_path / "new.onnx"
    artifact.write(graph_bytes(), manifest().model_copy(update={"format": 99}), None, path)
    with pytest.raises(ArtifactError, match="manifest format 99"):
        artifact.load(path)


def test_too_large_a_golden_clip(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 240, 320), dtype=np.uint8)
    clip = GoldenClip(noise, np.arange(8, dtype=np.int64), np.zeros(2, np.float32), 0.1)
    with pytest.raises(ArtifactError, match=r"golden clip of .* bytes, with 614,400 bytes of frames"):
        artifact.write(graph_bytes(), manifest(), clip, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_leaves_nothing(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(ArtifactError, match="cannot be written"):
        artifact.write(graph_bytes(), manifest(), None, blocker / "a.onnx")


def test_a_full_disk_keeps_the_old_file(written: Path) -> None:
    before = written.read_bytes()
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ArtifactError, match="cannot be written"):
            artifact.write(graph_bytes() + bytes(5000), manifest(), None, written)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == ["student.onnx"]


def test_the_newest_artifact_is_the_default_and_foreign_files_are_not(written: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    artifact.write(graph_bytes(), manifest(), None, run / "newer.onnx")
    (tmp_path / "plain.onnx").write_bytes(graph_bytes())
    artifact.write(graph_bytes(), manifest().model_copy(update={"graph": "clip"}), None, tmp_path / "clip.onnx")
    for age, path in enumerate([tmp_path / "plain.onnx", tmp_path / "clip.onnx", run / "newer.onnx", written]):
        os.utime(path, (1e9 - age, 1e9 - age))
    assert artifact.default_model(tmp_path) == run / "newer.onnx"


def test_a_damaged_default_is_not_silently_replaced(written: Path) -> None:
    damaged = bytearray(written.read_bytes())
    damaged[40] ^= 1
    written.write_bytes(damaged)
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.default_model(written.parent)


def test_without_any_artifact_the_bundled_one_is_the_default(tmp_path: Path) -> None:
    assert artifact.default_model(tmp_path) == artifact.BUNDLED


def test_the_bundled_student_is_small_and_knows_the_ten_actions() -> None:
    bundled = artifact.load(artifact.BUNDLED)
    assert artifact.BUNDLED.stat().st_size <= 4_000_000
    assert bundled.golden is not None
    assert bundled.manifest.band == "nir"
    assert bundled.manifest.precision == "fp16"
    assert len(bundled.manifest.labels) == 10


def test_an_artifact_of_before_a_new_field_still_loads(written: Path) -> None:
    """A field with a default that a later release adds to the manifest is not damage."""
    older = manifest().model_dump()
    del older["states"], older["preprocess"]["replicate"], older["health"], older["familiar"]
    text = json.dumps(older | {"sha256": "", "manifest_sha256": ""}, separators=(",", ":"))
    body = graph_bytes()
    text = text.replace('"sha256":""', f'"sha256":"{hashlib.sha256(body).hexdigest()}"', 1)
    own = hashlib.sha256(text.encode()).hexdigest()
    text = text.replace('"manifest_sha256":""', f'"manifest_sha256":"{own}"')
    for content, good in ((text, True), (text.replace('"sit"', '"sat"'), False)):
        entry = onnx.StringStringEntryProto(key="kd_edge", value=content).SerializeToString()
        size = len(entry)
        written.write_bytes(body + bytes([14 << 3 | 2, size & 0x7F | 0x80, size >> 7]) + entry)
        if good:
            assert artifact.load(written).manifest.labels == ("sit", "stand")
        else:
            with pytest.raises(ArtifactError, match="is damaged"):
                artifact.load(written)


BOUNDS = PictureBounds(
    mean=1, contrast=1, saturated=0.1, measured=0, grain=1, sharpness=0.5, noise=0.2, moves=True, saturation=65000,
    side="training side of subjects", clips=2, frames=9,
)  # fmt: skip


def reference(classes: int, size: int) -> FeatureReference:
    means, deviation = np.ones((classes, size), np.float32), np.ones(size, np.float32)
    return FeatureReference.of(means, deviation, means[:1], np.float32([2]), 0.5)


def test_rewriting_changes_the_manifest_alone(written: Path, tmp_path: Path) -> None:
    before = artifact.load(written)
    wanted = before.manifest.model_copy(update={"health": BOUNDS, "familiar": reference(2, 3)})
    artifact.rewrite(before, wanted, written)
    after = artifact.load(written)
    assert after.manifest.sha256 == before.manifest.sha256
    assert (after.manifest.health, after.manifest.familiar) == (BOUNDS, reference(2, 3))
    assert after.golden is not None
    assert after.golden.logits.tolist() == [0.5, -1.0]
    onnx.checker.check_model(onnx.load(written))


def test_a_file_that_has_changed_is_not_rewritten(written: Path, tmp_path: Path) -> None:
    loaded = artifact.load(written)
    artifact.write(graph_bytes(), manifest(), None, written)
    with pytest.raises(ArtifactError, match="has changed since"):
        artifact.rewrite(loaded, loaded.manifest, tmp_path / "never.onnx")
    written.unlink()
    with pytest.raises(ArtifactError, match="no file"):
        artifact.rewrite(loaded, loaded.manifest, tmp_path / "never.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("classes", "size"), [(3, 3), (2, 4)])
def test_a_reference_of_another_model_is_refused(classes: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"familiar: {classes} classes of {size} values for 2 labels"):
        Manifest.model_validate(manifest().model_dump() | {"familiar": reference(classes, size).model_dump()})


def test_a_runs_folder_is_told_how_to_become_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"{tmp_path} is a folder.*kd-edge export {tmp_path}"):
        artifact.load(tmp_path)
