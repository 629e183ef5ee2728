"""The sink that a URI names."""

from __future__ import annotations

import io
import sys

import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.sinks import SinkThread, open_sink


@pytest.mark.parametrize("uri", ["terminl:", "jsonl:", "terminal", "mqtt://x", ""])
def test_unknown_sinks(uri):
    with pytest.raises(ConfigError, match="sink"):
        open_sink(uri)
    if uri == "terminl:":
        with pytest.raises(ConfigError, match="did you mean 'terminal'"):
            open_sink(uri)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("jsonl:", "sink 'jsonl:' without a path. Expected"),
        ("jsonl:?max_mb=3", "without a path. Expected"),
        ("labels.jsonl", "(did you mean 'jsonl:labels.jsonl'?)"),
        ("/tmp/labels", "(did you mean 'jsonl:/tmp/labels'?)"),
        ("terminal", "(did you mean 'terminal:'?)"),
        ("json", "(did you mean 'jsonl:'?)"),
        ("", "sink ''. Expected"),
    ],
)
def test_what_a_sink_lacks_is_told(uri, told):
    with pytest.raises(ConfigError) as caught:
        open_sink(uri)
    assert told in str(caught.value)


@pytest.mark.parametrize("query", ["max_mb=0", "max_mb=much", "max=3", "max_mb=nan"])
def test_a_faulty_bound_is_refused(query):
    with pytest.raises(ConfigError, match="max_mb=N"):
        open_sink(f"jsonl:labels.jsonl?{query}")


@pytest.mark.parametrize("uri", ["terminal:", "jsonl:-"])
@pytest.mark.parametrize("missing", [True, False])
def test_closed_standard_output_is_told_before_the_stream_starts(uri, missing, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", None if missing else closed)
    thread = SinkThread(open_sink(uri))
    with pytest.raises(ConfigError, match=f"sink {uri} has no standard output"):
        thread.open()
    thread.close()
