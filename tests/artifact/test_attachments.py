"""Attachments: the graph in other engines' formats, in a field that ONNX does not know."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from kd_edge import artifact
from kd_edge.artifact import wire
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import ArtifactError

from .test_bounds import forged, refused
from .test_file import golden, graph_bytes, manifest

PARAM, WEIGHTS = b"7767517\n", bytes(range(256)) * 3
BOTH = {"ncnn.param": PARAM, "ncnn.bin": WEIGHTS}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    artifact.write(graph_bytes(), manifest(), golden(), tmp_path / "a.onnx", attachments=BOTH)
    return tmp_path / "a.onnx"


def attached(name: bytes = b"ncnn.bin", content: bytes = b"abc", *, number: int = 1100) -> bytes:
    return wire.bytes_field(number, wire.bytes_field(1, name) + wire.bytes_field(2, content))


def test_they_are_read_back_byte_by_byte(written: Path) -> None:
    loaded = artifact.load(written)
    assert {name: loaded.attachment(name) for name in loaded.attachments} == BOTH
    start, length = loaded.attachments["ncnn.bin"]
    assert written.read_bytes()[start : start + length] == WEIGHTS
    with loaded.open_attachment("ncnn.bin") as file:
        assert file.read(4) == b"\x00\x01\x02\x03"
    assert loaded.golden is not None


def test_the_bytes_are_those_of_a_protobuf_field_1100(written: Path) -> None:
    """Worked out by hand: tag 1100 << 3 | 2 = 0x2262, as a varint e2 44; 10 bytes of name and 8 of content follow."""
    expected = b"\xe2\x44" + bytes([2 + 10 + 2 + 8]) + b"\x0a\x0ancnn.param" + b"\x12\x08" + PARAM
    assert written.read_bytes()[len(graph_bytes()) :].startswith(expected)


def test_onnx_and_onnxruntime_read_the_graph_as_before(written: Path) -> None:
    model = onnx.load(written)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph == onnx.load_model_from_string(graph_bytes()).graph
    session = load_onnxruntime().InferenceSession(str(written), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.float32([7])})[0].tolist() == [7]


def test_the_hash_covers_them(written: Path) -> None:
    good = written.read_bytes()
    at = good.index(WEIGHTS) + 5
    written.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
    with pytest.raises(ArtifactError, match="do not match the stored hash"):
        artifact.load(written)


def test_rewriting_keeps_them(written: Path, tmp_path: Path) -> None:
    loaded = artifact.load(written)
    artifact.rewrite(loaded, loaded.manifest.model_copy(update={"name": "other"}), tmp_path / "b.onnx")
    again = artifact.load(tmp_path / "b.onnx")
    assert again.manifest.name == "other"
    assert {name: again.attachment(name) for name in again.attachments} == BOTH


def test_without_any_the_file_is_as_before(tmp_path: Path) -> None:
    artifact.write(graph_bytes(), manifest(), None, tmp_path / "a.onnx")
    artifact.write(graph_bytes(), manifest(), None, tmp_path / "b.onnx", attachments={})
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    loaded = artifact.load(tmp_path / "a.onnx")
    assert loaded.attachments == {}
    with pytest.raises(ArtifactError, match=r"a\.onnx carries no ncnn\.bin"):
        loaded.attachment("ncnn.bin")


@pytest.mark.parametrize(
    ("attachments", "found"),
    [
        ({"notes.txt": b"a"}, r"an attachment 'notes\.txt' of 1 bytes"),
        ({"ncnn.param": bytes(1_000_001)}, r"an attachment 'ncnn\.param' of 1,000,001 bytes"),
    ],
)
def test_what_no_robot_would_read_is_not_written(tmp_path: Path, attachments: dict[str, bytes], found: str) -> None:
    with pytest.raises(ArtifactError, match=rf"{found}\. Expected ncnn\.param of at most 1,000,000 bytes or ncnn\.bin"):
        artifact.write(graph_bytes(), manifest(), None, tmp_path / "a.onnx", attachments=attachments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (attached() * 2, "ncnn.bin is attached twice"),
        (attached(b"notes.txt"), "'notes.txt' is unknown"),
        (attached(b"ncnn.bin\x1b[2J"), r"is unknown"),
        (attached(b"\xff\xfe"), "codec can't decode"),
        (attached(b"x" * 65), "does not start with its name"),
        (attached(b"ncnn.param", bytes(1_000_001)), "ncnn.param of 1,000,001 bytes"),
        (wire.bytes_field(1100, b""), "does not start with its name"),
        (wire.bytes_field(1100, wire.bytes_field(2, b"abc")), "does not start with its name"),
        (wire.bytes_field(1100, wire.bytes_field(1, b"ncnn.bin")), "ncnn.bin has no content"),
        (wire.bytes_field(1100, wire.bytes_field(1, b"ncnn.bin") + b"\x10\x01"), "ncnn.bin has no content"),
        (
            wire.bytes_field(1100, wire.bytes_field(1, b"ncnn.bin") + wire.bytes_field(2, b"abc") + b"\x18\x01"),
            "ncnn.bin of 3 bytes",
        ),
        (wire.bytes_field(1100, wire.bytes_field(1, b"ncnn.bin") + b"\x12\x04abc"), "ends at"),
        (wire.bytes_field(1100, wire.bytes_field(1, b"ncnn.bin") + b"\x12\xff\xff\xff\xff\x7fabc"), "ends at"),
        (wire.bytes_field(1100, wire.bytes_field(1, b"ncnn.bin") + b"\x12\xff\xff\xff"), "ends at"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_attachment_that_no_export_writes(tmp_path: Path, field: bytes, why: str) -> None:
    refused(forged(tmp_path / "a.onnx", graph_bytes() + field), why)


def test_what_only_looks_like_one_is_another_tools(tmp_path: Path) -> None:
    others = attached(number=1101) + b"\xe0\x44\x05"  # another field, and 1100 as a number
    assert artifact.load(forged(tmp_path / "a.onnx", graph_bytes() + others)).attachments == {}


def test_loading_reads_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    artifact.write(graph_bytes(), manifest(), None, path, attachments={"ncnn.bin": bytes(30_000_000)})
    tracemalloc.start()
    try:
        assert artifact.load(path).attachments["ncnn.bin"].length == 30_000_000
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_has_shrunk_or_gone_since_is_one_line(written: Path) -> None:
    loaded = artifact.load(written)
    written.write_bytes(written.read_bytes()[: loaded.attachments["ncnn.bin"].start + 10])
    with pytest.raises(ArtifactError, match="has changed since it was loaded"):
        loaded.attachment("ncnn.bin")
    written.unlink()
    with pytest.raises(ArtifactError, match=r"no file .*a\.onnx"):
        loaded.attachment("ncnn.bin")
