"""Pictures that become grey or colour by being read are remarked, by what is seen in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.data.readers.files import Files


def write(folder: Path, name: str, *, colour: bool, codec: str = "MJPG") -> None:
    """Three pictures of a ramp."""
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    image = np.stack([ramp, ramp, 255 - ramp] if colour else [ramp] * 3, axis=2)
    video = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*codec), 30, (64, 48))
    for _ in range(3):
        video.write(image)
    video.release()


@pytest.mark.parametrize(
    ("name", "colour", "remark"),
    [
        ("1_ir.avi", True, "ir is in colour (1_ir.avi) and read as grey: to keep the colour, set band"),
        ("1_ir.avi", False, ""),
        ("1_rgb.avi", False, "rgb is grey (1_rgb.avi) and read as three equal channels"),
        ("1_rgb.avi", True, ""),
    ],
)
def test_colour_read_as_grey_and_grey_read_as_colour_are_remarked(
    name: str, colour: bool, remark: str, tmp_path: Path
) -> None:
    for label in ("walk", "fall"):
        (tmp_path / label).mkdir()
        write(tmp_path / label, name, colour=colour)
    told = [text for text in Files(tmp_path).remarks() if "read as" in text]
    assert len(told) == bool(remark)
    assert all(text.startswith(remark) for text in told)


@pytest.mark.parametrize(("colour", "modality"), [(False, "ir"), (True, "rgb")])
def test_a_video_whose_name_does_not_say_what_it_is(colour: bool, modality: str, tmp_path: Path) -> None:
    for label in ("walk", "fall"):
        (tmp_path / label).mkdir()
        write(tmp_path / label, "1.mp4", colour=colour, codec="mp4v")
    assert Files(tmp_path).modalities == (modality,)


def test_what_cannot_be_read_is_not_remarked(tmp_path: Path) -> None:
    for label in ("walk", "fall"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1_ir.avi").write_bytes(b"damaged")
    assert not any("read as" in text for text in Files(tmp_path).remarks())
