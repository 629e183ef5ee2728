"""Frames brought to their size: by halving, in their dtype, holes counted as 0 or left out."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.preprocess import Preprocess, recorded_input
from kd_edge.resizing import Resizer, resize, resize_steps, resized_shape
from kd_edge.types import Clip


@pytest.mark.parametrize(
    ("height", "width", "px", "expected"),
    [(480, 640, 240, (240, 320)), (240, 320, 72, (72, 96)), (640, 480, 96, (128, 96)), (100, 100, 224, (224, 224))],
)
def test_shorter_side(height: int, width: int, px: int, expected: tuple[int, int]) -> None:
    assert resized_shape(height, width, px) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resize_averages_areas_and_keeps_the_dtype(dtype: type) -> None:
    image = np.array([[0, 4, 8, 8], [4, 8, 8, 8]], dtype=dtype)
    small = resize(image, 1)
    assert small.dtype == dtype
    assert small.tolist() == [[4, 8]]  # means of the two 2 x 2 blocks


def test_resize_leaves_a_fitting_frame_alone() -> None:
    image = np.zeros((10, 12), np.uint8)
    assert resize(image, 10) is image


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
def test_a_view_is_resized_like_its_copy(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    for view in (image[:, ::-1], image[4:44, 3:60], image[::2, ::2]):
        np.testing.assert_array_equal(resize(view, 16), resize(view.copy(), 16))


@pytest.mark.parametrize(
    ("height", "width", "px", "steps"),
    [
        (480, 640, 224, [(240, 320), (224, 299)]),
        (480, 640, 120, [(240, 320), (120, 160)]),  # halving ends at the size itself
        (480, 640, 256, [(256, 341)]),
        (481, 640, 96, [(96, 128)]),  # odd: no halving
        (60, 80, 120, [(120, 160)]),  # enlarging
        (60, 80, 60, []),
    ],
)
def test_resize_halves_as_long_as_it_is_exact(height: int, width: int, px: int, steps: list[tuple[int, int]]) -> None:
    assert resize_steps(height, width, px) == steps


def test_resize_reuses_its_buffers() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    resizer = Resizer(image, 2)
    small = resizer(image)
    assert resizer(image + np.uint8(1)) is small
    assert resizer(image) is small
    assert small.tolist() == [[25, 45], [105, 125]]  # means of 2x2 pixels


HOLED = np.array([[1000, 0, 0, 0], [2000, 3000, 0, 0]], np.uint16)


def test_a_hole_is_averaged_as_nothing_or_left_out() -> None:
    assert resize(HOLED, 1).tolist() == [[1500, 0]]
    small = resize(HOLED, 1, "left_out")
    assert small.dtype == np.uint16
    assert small.tolist() == [[2000, 0]], "of three measurements; where none is stays a hole"
    assert resize((HOLED // 50).astype(np.uint8), 1, "left_out").tolist() == [[40, 0]]


def test_what_has_no_holes_is_resized_as_ever_but_for_rounding() -> None:
    image = np.random.default_rng(0).integers(1, 65536, (48, 70)).astype(np.uint16)
    for px in (9, 12, 24, 48, 60):
        # pixels are rounded once, not after each halving
        assert abs(resize(image, px, "left_out").astype(int) - resize(image, px)).max() <= 1


@pytest.mark.parametrize("value", [1, 2500, 65535])
def test_a_wall_keeps_its_distance_however_few_pixels_measure_it(value: int) -> None:
    wall = np.full((48, 64), value, np.uint16)
    wall[np.random.default_rng(0).random(wall.shape) < 0.3] = 0
    small = resize(wall, 20, "left_out")  # halved, then bilinear
    assert small.shape == (20, 27)
    seen = small[small > 0].astype(int)
    assert seen.size >= 0.99 * small.size
    assert np.unique(seen).tolist() == [value]


def test_the_mean_is_that_of_the_measurements() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(500, 4000, (64, 64)).astype(np.uint16)
    image[rng.random(image.shape) < 0.4] = 0
    blocks = image.reshape(8, 8, 8, 8).astype(float)  # (rows, in a row, columns, in a column)
    mean = blocks.sum((1, 3)) / (blocks > 0).sum((1, 3))
    np.testing.assert_array_equal(resize(image, 8, "left_out"), np.rint(mean))


def test_a_stream_resizes_into_the_same_memory() -> None:
    resizer = Resizer(HOLED, 1, "left_out")
    small = resizer(HOLED)
    assert small.tolist() == [[2000, 0]]
    assert resizer(HOLED[:, ::-1]) is small
    assert small.tolist() == [[0, 2000]]
    assert resizer(np.zeros_like(HOLED)) is small
    assert not small.any()


def test_of_a_small_pixel_a_fifth_must_have_been_measured() -> None:
    image = np.zeros((8, 8), np.uint16)
    image[0, :3] = 900, 901, 902  # three of its sixteen: 0.19
    assert resize(image, 2, "left_out").tolist() == [[0, 0], [0, 0]]
    image[1, 0] = 905  # four: 0.25
    assert resize(image, 2, "left_out").tolist() == [[902, 0], [0, 0]]


def test_a_frame_that_fits_is_left_alone_with_its_holes() -> None:
    assert resize(HOLED, 2, "left_out") is HOLED


def test_a_clip_is_preprocessed_without_its_holes() -> None:
    frames = np.full((3, 16, 16), 100, np.uint8)
    frames[:, ::2, ::2] = 0
    clip = Clip(frames, np.arange(3) * 40_000_000)
    of: dict[str, float] = {}
    for holes in ("averaged", "left_out"):
        spec = Preprocess.model_validate({"resize_px": 8, "input_px": 8, "holes": holes, "mean": [0], "std": [1]})
        values = recorded_input(clip, np.array([0, 2]), spec)
        assert values.min() == values.max()
        of[holes] = float(values[0, 0, 0, 0])
    assert of == pytest.approx({"averaged": 75 / 255, "left_out": 100 / 255})
