from __future__ import annotations

import pytest

from kd_edge.runtime.uri import Uri, forms, parse, shown


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("v4l2:/dev/video0", ("v4l2", "/dev/video0", {})),
        ("v4l2:/dev/video0?pixel_format=Y16&fps=9", ("v4l2", "/dev/video0", {"pixel_format": "Y16", "fps": "9"})),
        ("synthetic:", ("synthetic", "", {})),
        ("synthetic:?seed=1&actions=", ("synthetic", "", {"seed": "1", "actions": ""})),  # an empty value is one
        ("replay:clip?.npy", ("replay", "clip?.npy", {})),  # a glob
        ("replay:clip?.npy?fps=9", ("replay", "clip?.npy", {"fps": "9"})),
        ("replay:C:/clips", ("replay", "C:/clips", {})),  # the first colon counts
        ("jsonl:-", ("jsonl", "-", {})),
        ("jsonl:a%20b?max_mb=1", ("jsonl", "a%20b", {"max_mb": "1"})),  # a path stays as it is written
        ("http://h/a?b=c", ("http", "//h/a?b=c", {})),  # the server's query
        ("http://h/a?b=c#fps=9", ("http", "//h/a?b=c", {"fps": "9"})),
        ("http://h/#a#b=c", ("http", "//h/", {"a#b": "c"})),  # the first one counts
        ("gstreamer:a ! b?c=d#e=f", ("gstreamer", "a ! b?c=d#e=f", {})),
        ("ir0", ("", "ir0", {})),  # a name
        ("", ("", "", {})),
    ],
)
def test_a_uri_is_taken_apart(text: str, parts: tuple[str, str, dict[str, str]]) -> None:
    assert parse(text) == Uri(*parts)


def test_schemes_are_named_as_they_are_typed() -> None:
    assert forms(("replay", "v4l2")) == "replay:, v4l2:"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ir0", "ir0"),
        ("v4l2:/dev/video0?fps=9", "v4l2:/dev/video0?fps=9"),
        ("replay:a@b/clip.avi", "replay:a@b/clip.avi"),
        ("rtsp://host:554/stream", "rtsp://host:554/stream"),
        ("rtsp://me:secret@host/stream#transport=udp", "rtsp://***@host/stream"),
        ("rtsp://secret@host", "rtsp://***@host"),
        ("rtsp://me:sec@ret@host/x", "rtsp://***@host/x"),
        ("rtsp://me:sec/r?e#t@host/x", "rtsp://***@host/x"),
        ("RTSP://me:secret@host/x", "RTSP://***@host/x"),
        ("rstp://me:secret@host/x", "rstp://***@host/x"),
        ("http:me:secret@host/x", "http://***@host/x"),
        ("http://host/x?user=me&pwd=secret", "http://host/x?***"),
        ("http://host/x?secret", "http://host/x?***"),
        ("rtsp://host/user=me&password=secret/1.sdp", "rtsp://host/user=***&password=***/1.sdp"),
        ("udp://@239.0.0.1:5000", "udp://@239.0.0.1:5000"),
        ("gstreamer:videotestsrc ! appsink", "gstreamer:videotestsrc ! appsink"),
        ("gstreamer:rtsp://me:secret@h ! appsink", "gstreamer:rtsp://***@h ! appsink"),
        ("gstreamer:rtspsrc user-pw=secret ! appsink", "gstreamer:rtspsrc user-pw=*** ! appsink"),
        ("gstreamer:rtspsrc user-pw = 'a secret' ! appsink", "gstreamer:rtspsrc user-pw=*** ! appsink"),
        (r'gstreamer:rtspsrc user-pw="a \" secret" ! appsink', "gstreamer:rtspsrc user-pw=*** ! appsink"),
        (r"gstreamer:rtspsrc user-pw=a\ secret ! appsink", "gstreamer:rtspsrc user-pw=*** ! appsink"),
    ],
)
def test_what_may_be_secret_is_not_shown(text: str, told: str) -> None:
    assert shown(text) == told
    assert shown(told) == told
