"""What may be asked for as ``sinks=``."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime import stream
from kd_edge.runtime.sinks import sink_threads, sinks_asked
from tests.runtime.conftest import HandClock
from tests.runtime.sinks.conftest import ListSink


def without(name: str) -> ListSink:
    sink = ListSink()
    setattr(sink, name, None)
    return sink


@pytest.mark.parametrize(
    ("sink", "told"),
    [
        (print, "without name, open, write, close"),
        (io.StringIO(), "without name, open"),
        (ListSink, "ListSink'>, which is a class"),
        (None, "sink None without"),
        (7, "sink 7 without"),
        *((without(name), f"without {name}.") for name in ("name", "open", "write", "close")),
    ],
)
def test_what_is_no_sink_is_refused_before_a_model_is_loaded(sink, told):
    for asked in (sink, [sink], ("terminal:", sink)):
        with pytest.raises(ConfigError) as caught:
            stream(model="nowhere.onnx", camera="synthetic:", sinks=asked)
        assert told in str(caught.value)


def test_a_class_is_told_how_to_make_one():
    with pytest.raises(ConfigError) as caught:
        sinks_asked([ListSink])
    assert caught.value.fix == "make one: ListSink()"


def test_one_or_several(tmp_path):
    sink, path = ListSink(), tmp_path / "labels.jsonl"
    for one in (sink, path, "terminal:"):
        assert sinks_asked(one) == sinks_asked([one]) == (one,)
    assert sinks_asked(()) == ()


def test_a_path_is_a_file_of_json_lines_and_a_uri_needs_no_list(make_model, noise, tmp_path):
    clip = tmp_path / "clip.npy"
    np.save(clip, noise(5))
    files = [tmp_path / "a?b.jsonl", tmp_path / "b.jsonl"]
    for sinks in (files[0], f"jsonl:{files[1]}"):
        with stream(model=make_model()[0], camera=f"replay:{clip}", sinks=sinks) as labels:
            assert len(list(labels)) == 5
    for file in files:
        assert [json.loads(line)["frame_id"] for line in file.read_text().splitlines()] == [0, 1, 2, 3, 4]


def test_sinks_of_one_name_are_told_apart():
    other = ListSink()
    other.name = "other"
    threads = sink_threads([ListSink(), other, ListSink()], lossless=False, clock=HandClock())
    assert [thread.name for thread in threads] == ["list:", "other", "list: (2)"]
