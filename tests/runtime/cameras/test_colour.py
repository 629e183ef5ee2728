"""Colour that a model of one channel gets as grey: said once, and only where there is colour."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.artifact import BUNDLED
from kd_edge.runtime.cameras.base import Wanted
from kd_edge.runtime.cameras.colour import Greying, is_coloured
from kd_edge.runtime.stream import stream


def pictures(*, colour: bool, count: int = 4) -> list[np.ndarray]:
    """Smooth pictures (64, 80, 3) that differ, B, G, R: JPEG leaves little colour in grey ones."""
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.float32)
    grey = [np.uint8((ramp + 9 * k) % 256) for k in range(count)]
    return [np.stack([g, g // 2 + 60 * colour, 255 - g] if colour else [g, g, g], axis=2) for g in grey]


def written(folder: Path, name: str, images: list[np.ndarray]) -> Path:
    """The pictures as Motion JPEG, as PNG files, or as one array."""
    path = folder / name
    if name.endswith(".avi"):
        video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (80, 64))
        for image in images:
            video.write(image)
        video.release()
    else:
        path.mkdir()
        for k, image in enumerate(images):
            cv2.imwrite(str(path / f"{k}.png"), image)
    return path


@pytest.mark.parametrize("name", ["clip.avi", "images"])
@pytest.mark.parametrize("colour", [True, False])
def test_a_colour_recording_on_an_infrared_model_is_told_once(
    name: str, colour: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, name, pictures(colour=colour))
    with caplog.at_level(logging.WARNING), stream(model=BUNDLED, camera=f"replay:{path}") as labels:
        assert len(list(labels)) == 4
    told = [record.getMessage() for record in caplog.records if "made grey" in record.getMessage()]
    assert len(told) == (1 if colour else 0)
    if colour:
        assert told[0].startswith(f"camera {name} gives colour, made grey for this model of nir pictures: ")


def test_a_live_camera_is_looked_at_once_and_only_for_models_of_one_channel(caplog: pytest.LogCaptureFixture) -> None:
    image = pictures(colour=True)[0]
    for channels, times in ((1, 1), (3, 0)):
        caplog.clear()
        greying = Greying("door", Wanted(channels=channels))  # type: ignore[arg-type]
        with caplog.at_level(logging.WARNING):
            greying.see(image)
            greying.see(image)
        assert len(caplog.records) == times


def test_a_spot_of_colour_is_a_grey_picture() -> None:
    """A coloured light, or what subsampled chroma leaves at edges, is less than a fiftieth of the pixels."""
    image = np.full((100, 100, 3), 90, np.uint8)
    image[:8, :8, 2] = 250
    assert not is_coloured(image)
    image[:40, :40, 2] = 250
    assert is_coloured(image)
    assert not is_coloured(image[:, :, 0])
    assert not is_coloured(image[:, :, :2])
