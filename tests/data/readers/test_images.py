"""The order of a folder's images, however their names count."""

from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge.data.readers.images import sequence, sequence_names
from kd_edge.errors import DataError


@pytest.mark.parametrize(
    "names",
    [
        ["0001.png", "0002.png", "0010.png"],
        ["frame9.png", "frame10.png", "frame100.png"],
        ["cam1_0001.png", "cam1_0002.png"],
        ["2024-03-01_10-00-01.png", "2024-03-01_10-00-02.png", "2024-03-02_09-00-00.png"],
        ["a1.PNG", "a2.PNG", "a3.PNG"],
        ["only.png"],
        ["٣.png"],
    ],
)
def test_images_come_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    for name in [*reversed(names), "._hidden.png", "notes.txt"]:
        (tmp_path / name).touch()
    assert sequence_names(tmp_path) == names
    assert sequence(tmp_path) == [tmp_path / name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["a_01.png", "a_02.png", "b_01.png", "b_02.png"],
        ["cam1_01.png", "cam1_02.png", "cam2_01.png", "cam2_02.png"],
        ["01.png", "02.png", "01.jpg", "02.jpg"],
        ["a01b7.png", "a02b7.png"],
    ],
)
def test_two_sequences_are_told(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="2 sequences"):
        sequence_names(tmp_path)
