"""The picture for people."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("cv2")

from kd_edge.runtime.ros.annotated import annotated, caption, shown
from kd_edge.types import Frame, LabelState, Prediction, Reason
from tests.runtime.ros.predictions import predicted, stale


def test_any_frame_is_shown_in_colour_at_a_readable_width() -> None:
    assert shown(np.zeros((120, 160), np.uint8)).shape == (240, 320, 3)
    assert shown(np.zeros((720, 1280, 3), np.uint8)).shape == (360, 640, 3)
    assert shown(np.zeros((480, 640), np.uint8)).shape == (480, 640, 3)


def test_grey_is_grey_and_colour_stays() -> None:
    grey = np.full((240, 320), 77, np.uint8)
    assert (shown(grey) == 77).all()
    colour = np.zeros((240, 320, 3), np.uint8)
    colour[:] = (10, 20, 30)
    assert (shown(colour) == (10, 20, 30)).all()


def test_sixteen_bits_are_stretched() -> None:
    depth = np.full((240, 320), 1000, np.uint16)
    depth[:, 160:] = 3000
    picture = shown(depth)
    assert (picture[:, :160] == 0).all()
    assert (picture[:, 160:] == 255).all()
    assert (shown(np.full((240, 320), 9, np.uint16)) == 0).all()


def test_the_bar_is_as_long_as_the_label_is_sure() -> None:
    picture = annotated(Frame(np.full((240, 320), 77, np.uint8), 0, 0, "ir"), predicted("wave", 0.75))
    assert picture.shape == (268, 320, 3)
    assert (picture[:240] == 77).all()
    assert (picture[267, :240] == (0, 66, 0)).all()  # a third of green, below the caption
    assert (picture[267, 240:] == 0).all()
    assert (picture[240:] == (0, 200, 0)).all(axis=2).any()  # caption


def test_words_that_are_too_long_are_written_smaller() -> None:
    grey = Frame(np.full((240, 320), 77, np.uint8), 0, 0, "ir")
    long = dataclasses.replace(predicted("wave", 0.0), label="wave" + "e" * 50)
    bar = annotated(grey, long)[240:]
    columns = np.flatnonzero(bar.any(axis=(0, 2)))
    assert 280 < columns[-1] < 316  # to its end, and not cut


@pytest.mark.parametrize(
    ("prediction", "text"),
    [
        (predicted("wave", 0.75), "wave 75%"),
        (predicted("wave", 0.75, state=LabelState.DEGRADED, reason=Reason.SPARSE), "wave 75% (degraded: sparse)"),
        (stale(), "stale no_frame"),
        (predicted(None), "unknown low_confidence"),
    ],
)
def test_words(prediction: Prediction, text: str) -> None:
    assert caption(prediction) == text


def test_a_line_of_pixels_is_not_made_gigabytes() -> None:
    assert shown(np.zeros((8192, 1), np.uint8)).shape == (1280, 320, 3)
    assert shown(np.zeros((1, 8192), np.uint16)).shape == (1, 640, 3)
    assert shown(np.zeros((1, 1), np.uint8)).shape == (320, 320, 3)
