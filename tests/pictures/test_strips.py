"""Film strips: the frames a network sees made visible again, heat and weights on them, and the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from kd_edge.errors import DataError
from kd_edge.pictures.strips import (
    Strip,
    coloured,
    draw_strips,
    enlarged,
    heading,
    heated,
    positive_share,
    seen_frames,
    weighted,
)
from kd_edge.preprocess import Preprocess
from tests.pictures.conftest import picture


def test_the_newest_frame_of_a_motion_stack_is_shown_in_grey() -> None:
    spec = Preprocess(channels=1, resize_px=8, input_px=8, motion_offsets_ms=(0, 70), mean=(0.4,), std=(0.2,))
    inputs = np.zeros((3, 2, 8, 8), dtype=np.float32)
    inputs[:, 0] = np.array([-2.0, 0.5, 3.0])[:, None, None]  # 0.4 + 0.2 z = 0, 0.5, 1
    inputs[:, 1] = 7
    frames = seen_frames(inputs, spec)
    assert frames.shape == (3, 8, 8, 3)
    assert frames.dtype == np.uint8
    assert frames[:, 4, 4].tolist() == [[0, 0, 0], [128, 128, 128], [255, 255, 255]]


def test_colours_are_shown_as_they_were() -> None:
    spec = Preprocess(channels=3, resize_px=8, input_px=8, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    colour = np.array([200, 100, 50]) / 255
    z = (colour - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3]
    inputs = np.broadcast_to(z[None, :, None, None], (1, 3, 8, 8)).astype(np.float32)
    assert seen_frames(inputs, spec)[0, 0, 0].tolist() == [200, 100, 50]
    replicated = Preprocess(channels=1, resize_px=8, input_px=8, replicate=3, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    grey = seen_frames(inputs, replicated)[0, 0, 0]
    assert grey.tolist() == [200, 200, 200]


def test_shares_leave_out_what_speaks_against() -> None:
    maps = np.array([[[-4.0, 1.0]], [[2.0, 0.0]]], dtype=np.float32)
    np.testing.assert_array_equal(positive_share(maps), [[[0, 0.5]], [[1, 0]]])
    np.testing.assert_array_equal(positive_share(-np.abs(maps)), np.zeros((2, 1, 2)))


def test_maps_are_resampled_bilinearly() -> None:
    np.testing.assert_allclose(enlarged(np.float32([[[0, 1]]]), (1, 4)), [[[0, 0.25, 0.75, 1]]])
    assert enlarged(np.ones((5, 2, 3), np.float32), (6, 7)).shape == (5, 6, 7)


def test_high_is_red_and_low_is_blue() -> None:
    frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    maps = np.stack([np.zeros((2, 2)), np.full((2, 2), 0.9)]).astype(np.float32)
    low, high = heated(frames, maps)[:, 1, 1].astype(int)
    assert low[2] > 60
    assert low[0] == low[1] == 0
    assert high[0] > 100
    assert high[2] == 0
    np.testing.assert_array_equal(heated(frames + np.uint8(80), maps, strength=0), frames + 80)


def test_weights_darken_every_channel() -> None:
    frames = np.full((1, 2, 2, 3), (200, 100, 50), dtype=np.uint8)
    shown = weighted(frames, np.float32([[[0.5]]]))
    assert shown[0, 1, 1].tolist() == [100, 50, 25]
    assert not weighted(frames, np.zeros((1, 1, 1), np.float32)).any()
    alone = coloured(np.float32([[[0, 1]]]), (1, 2))[0, 0].astype(int)
    assert alone[1].sum() > 2 * alone[0].sum()  # bright is high


@pytest.mark.slow
def test_the_picture_has_a_row_per_strip_and_goes_on_below_eight_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for count in (3, 8, 12):
        frames = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        strips = [Strip("input", frames), Strip("red", np.full_like(frames, (255, 0, 0)))]
        draw_strips(strips, [f"{i} s" for i in range(count)], "title", "caption", tmp_path / "deep" / f"{count}.png")
    three, eight, twelve = (picture(tmp_path / "deep" / f"{count}.png") for count in (3, 8, 12))
    assert three.shape[0] == eight.shape[0]
    assert three.shape[1] < eight.shape[1] == twelve.shape[1]
    assert twelve.shape[0] > 1.7 * eight.shape[0]
    red = [np.count_nonzero((image == (0, 0, 255)).all(axis=2)) for image in (three, eight, twelve)]
    np.testing.assert_allclose(np.divide(red, red[0]), [1, 8 / 3, 4], rtol=0.02)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["12.png", "3.png", "8.png"]


def test_long_titles_get_smaller_letters() -> None:
    figure = Figure(figsize=(9.5, 3))
    heading(figure, "short", "x" * 300)
    sizes = [text.get_fontsize() for text in figure.texts]
    assert sizes[0] == 13
    assert 3 < sizes[1] < 6


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(DataError, match=r"file/cam\.png cannot be written"):
        draw_strips([Strip("input", frames)], ["0 s"], "title", "caption", tmp_path / "file" / "cam.png")
