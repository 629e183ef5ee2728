"""JSON lines, in files of every kind and on standard output."""

from __future__ import annotations

import errno
import io
import json
import os
import socket

import numpy as np
import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.sinks import open_sink
from kd_edge.types import LabelState
from tests.runtime.sinks.conftest import prediction


def test_jsonl_file(tmp_path):
    sink = open_sink(f"jsonl:{tmp_path}/labels.jsonl")
    sink.open()
    sink.write(prediction(3))
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()  # at once, not when it is closed
    sink.close()
    assert len(lines) == 1
    assert json.loads(lines[0]) == {
        "source": "ir0", "label": "wave", "index": 0, "confidence": 0.75, "state": "ok", "reason": "", "detail": "",
        "anomaly": None, "frame_id": 3, "captured_ns": 300000000, "emitted_ns": None, "valid_until_ns": 300000005,
        "truth": None, "probabilities": [0.75, 0.25],
    }  # fmt: skip


def test_jsonl_to_standard_output():
    out = io.StringIO()
    sink = open_sink("jsonl:-", out)
    sink.open()
    sink.write(prediction(state=LabelState.STALE))
    sink.close()
    assert json.loads(out.getvalue())["state"] == "stale"
    assert not out.closed


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_null(bad):
    out = io.StringIO()
    sink = open_sink("jsonl:-", out)
    sink.write(prediction(confidence=bad, probabilities=np.array([bad, 0.25], np.float32)))
    values = json.loads(out.getvalue(), parse_constant=refuse)
    assert (values["confidence"], values["probabilities"]) == (None, [None, 0.25])


def test_one_label_is_one_line_of_plain_characters():
    """Whatever its names hold: half a surrogate pair, every end of a line, what steers a terminal."""
    out = io.StringIO()
    sink = open_sink("jsonl:-", out)
    name = "a\nb\r\x85\u2028\x1b[2J\x9b1m\u202e 手"
    sink.write(prediction(label=name, source="cam\udcff\ud800", truth="\udfff", detail="\ud800"))
    (line,) = out.getvalue().splitlines()
    assert line.isascii()
    assert line.isprintable()
    values = json.loads(line)
    assert [values[key] for key in ("label", "source", "truth", "detail")] == [name, "cam??", "?", "?"]


def test_stamps_of_numpy_are_numbers():
    out = io.StringIO()
    one = np.int64(1)
    open_sink("jsonl:-", out).write(
        prediction(
            captured_ns=one, emitted_ns=one, valid_until_ns=one, frame_id=one, index=one, confidence=np.float32(1)
        )
    )
    values = json.loads(out.getvalue())
    assert [values[key] for key in ("captured_ns", "emitted_ns", "valid_until_ns", "frame_id", "index")] == [1] * 5


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/folder/x.jsonl", r"No such file or directory"),
        ("", "Is a directory"),
        ("socket", "it is a socket"),
        ("link", r"is a symbolic link\. Expected the path of the file itself\. Fix: .* jsonl:- is standard output"),
        ("dangling", "is a symbolic link"),
        ("nul\0", "null"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_cannot_be_a_file_of_labels_is_told_before_the_stream_starts(tmp_path, path, message):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(ConfigError, match=message):
            open_sink(f"jsonl:{tmp_path}/{path}").open()
    assert (tmp_path / "target").read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_a_pipe_without_a_reader_is_no_fault_of_its_path(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="nobody reads the pipe") as raised:
        open_sink(f"jsonl:{tmp_path}/pipe").open()
    assert raised.value.errno == errno.ENXIO


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_devices_are_written(device):
    sink = open_sink(f"jsonl:{device}")
    sink.open()
    sink.write(prediction())
    sink.close()


def test_a_pipe_is_never_turned_over(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    sink = open_sink(f"jsonl:{tmp_path}/pipe?max_mb=0.000001")
    sink.open()
    for k in range(3):
        sink.write(prediction(k))
    sink.close()
    lines = os.read(reader, 1 << 16).splitlines()
    os.close(reader)
    assert [json.loads(line)["frame_id"] for line in lines] == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_bounded_jsonl_file_never_takes_more_than_twice_its_bound(tmp_path):
    sink = open_sink(f"jsonl:{tmp_path}/labels.jsonl?max_mb=0.001")
    sink.open()
    for k in range(40):
        sink.write(prediction(k))
    sink.close()
    older, newer = (tmp_path / name for name in ("labels.jsonl.1", "labels.jsonl"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.jsonl", "labels.jsonl.1"]
    assert max(older.stat().st_size, newer.stat().st_size) <= 1000
    kept = [json.loads(line)["frame_id"] for file in (older, newer) for line in file.read_text().splitlines()]
    assert kept == list(range(kept[0], 40))
