"""What a processor says of itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kd_edge.machine import has_bfloat16, usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's scheduler")
def test_cores_are_those_of_this_process() -> None:
    there = os.sched_getaffinity(0)
    assert usable_cores() == len(there)
    try:
        os.sched_setaffinity(0, {min(there)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, there)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t\t: fpu avx2 fma\n", False),
        ("flags\t\t: fpu avx2 avx512f avx512bw\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("processor : 0\nFeatures : asimd\n", True),
    ],
)
def test_bfloat16_by_the_flags(monkeypatch: pytest.MonkeyPatch, text: str, has: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert has_bfloat16() is has


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert has_bfloat16()
