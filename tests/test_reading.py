from __future__ import annotations

import os
from pathlib import Path

import pytest

from kd_edge.reading import DEPTH, is_file, open_regular, read_bytes, read_json


def fifo(path: Path) -> None:
    os.mkfifo(path)


def broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (fifo, "not a regular file"),  # nobody writes to it: opening it the usual way would wait for ever
        (Path.mkdir, "not a regular file"),
        (endless_device, "not a regular file"),
        (broken_link, "No such file or directory"),
    ],
)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, make: object, why: str) -> None:
    path = tmp_path / "x"
    assert callable(make)
    make(path)
    with pytest.raises(OSError, match=why):
        open_regular(path)
    assert not is_file(path)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_a_name_that_is_none_is_an_os_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"not a valid path|too long"):
        open_regular(tmp_path / name)
    assert not is_file(tmp_path / name)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(path, 4)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_bytes(link, 5) == b"12345"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "a list instead of an object"),
        ("null", "a NoneType instead of an object"),
        ("{", "Expecting property name"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' occurs twice"),
        ('{"x": {"a": 1, "a": 1}}', "the key 'a' occurs twice"),
        ('{"a": NaN}', "NaN instead of a finite number"),
        ('{"a": -Infinity}', "-Infinity instead of"),
        ('{"a": 1e999}', "1e999 instead of"),
        ('{"a": 9223372036854775808}', "an integer of more than 64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "an integer of 5000 digits"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": [' + "1," * 25_000 + "1], " + '"b": [' + "1," * 25_000 + "1]}", "more than 50,000 values"),
        ('{"a": ' + "[" * (DEPTH + 1) + "]" * (DEPTH + 1) + "}", f"nested deeper than {DEPTH} levels"),
    ],
)
def test_json_is_read_strictly(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_json(text)


def test_plain_json_is_what_json_says() -> None:
    deepest: object = []
    for _ in range(DEPTH - 1):
        deepest = [deepest]
    text = '{"a": [1, -9223372036854775808, 0.5, true, null, "\\ud83e\\udd16"], "deep": ' + f"{deepest}}}"
    assert read_json(text) == {"a": [1, -(2**63), 0.5, True, None, "\U0001f916"], "deep": deepest}
