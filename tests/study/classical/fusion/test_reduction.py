from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.data import Sample
from kd_edge.errors import DataError
from kd_edge.study.classical.fusion.reduction import Reduced, reduce_clips
from kd_edge.study.classical.results import silent
from kd_edge.types import Clip


class Two:
    """Two clips of signals, the second one damaged."""

    name = "two"
    samples = tuple(Sample(f"c{i}", "1", "front", "1", 0) for i in (1, 2))

    def __init__(self, content: str = "") -> None:
        self._content = content
        self.opened = 0

    def open(self, sample: Sample, modality: str) -> Clip:
        self.opened += 1
        if sample.id == "c2":
            raise DataError("c2.mat is damaged", "a recording", "fetch it")
        return Clip(np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3))

    def content_key(self, sample: Sample, modality: str) -> str:
        if sample.id == "c2":
            raise DataError("no file c2.mat", "a recording", "fetch it")
        return self._content


def reduced(dataset: Two, **settings: Any) -> Reduced:
    return reduce_clips(dataset, dataset.samples, "gyroscope", lambda clip: clip.frames.sum(0), settings, silent)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_clips_are_reduced_once(folder: Path) -> None:
    dataset = Two()
    first, second = reduced(dataset), reduced(dataset)
    assert dataset.opened == 2
    assert [file.suffix for file in folder.iterdir()] == [".npz"]
    for found in (first, second):
        assert {name: values.tolist() for name, values in found.values.items()} == {"c1": [6, 9]}
        assert found.values["c1"].dtype == np.float32
        assert found.skipped == {"c2": "gyroscope: c2.mat is damaged"}
    assert first.fingerprint == second.fingerprint


def test_other_settings_and_other_recordings_are_reduced_anew(folder: Path) -> None:
    prints = {reduced(Two()).fingerprint, reduced(Two(), windows=3).fingerprint, reduced(Two("other")).fingerprint}
    assert len(prints) == 3
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
def test_a_damaged_file_is_made_anew(folder: Path, content: bytes) -> None:
    reduced(Two())
    next(folder.iterdir()).write_bytes(content)
    dataset = Two()
    assert reduced(dataset).values["c1"].tolist() == [6, 9]
    assert dataset.opened == 2


def test_a_data_set_without_a_readable_clip_has_no_values() -> None:
    dataset = Two()
    dataset.samples = dataset.samples[1:]
    assert reduced(dataset).values == {}
    assert reduced(dataset).skipped.keys() == {"c2"}
