from __future__ import annotations

import pytest

from kd_edge.runtime.uri import Uri, forms, parse


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
        ("ir0", ("", "ir0", {})),  # a name
        ("", ("", "", {})),
    ],
)
def test_a_uri_is_taken_apart(text: str, parts: tuple[str, str, dict[str, str]]) -> None:
    assert parse(text) == Uri(*parts)


def test_schemes_are_named_as_they_are_typed() -> None:
    assert forms(("replay", "v4l2")) == "replay:, v4l2:"
