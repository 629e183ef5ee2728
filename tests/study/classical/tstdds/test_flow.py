from __future__ import annotations

import numpy as np
import pytest

from kd_edge.study.classical.tstdds.flow import flow_difference_image, flow_stack, optical_flow, stack_positions
from kd_edge.study.classical.tstdds.videos import UInt8


def pattern(dx: float, dy: float, side: int = 64) -> UInt8:
    """A smooth texture moved by (dx, dy), evaluated where it is, not resampled."""
    y, x = np.mgrid[:side, :side].astype(float)
    x, y = x - dx, y - dy
    waves = (
        np.sin(0.55 * x + 0.2 * y)
        + np.sin(0.5 * y - 0.25 * x)
        + np.sin(0.21 * x + 0.13 * y)
        + np.cos(0.9 * x - 0.8 * y)
    )
    return np.round(127.5 + 31 * waves).astype(np.uint8)


@pytest.mark.parametrize(("dx", "dy"), [(1.3, -0.6), (-0.4, 0.25), (3.0, 2.0), (0.0, 0.0)])
def test_translation_is_recovered_to_a_tenth_of_a_pixel(dx: float, dy: float) -> None:
    flow = optical_flow(np.stack([pattern(0, 0), pattern(dx, dy), pattern(2 * dx, 2 * dy)]))
    assert flow.shape == (2, 64, 64, 2)
    assert flow.dtype == np.float32
    inside = flow[:, 8:-8, 8:-8].reshape(-1, 2)
    np.testing.assert_allclose(np.median(inside, axis=0), [dx, dy], atol=0.05)
    assert np.abs(inside - [dx, dy]).mean() < 0.1


def test_each_field_depends_on_its_two_frames_alone() -> None:
    frames = np.stack([pattern(t * 0.7, t * -0.3) for t in range(5)])
    np.testing.assert_array_equal(optical_flow(frames)[2:3], optical_flow(frames[2:4]))


def test_one_frame_has_no_flow() -> None:
    assert optical_flow(pattern(0, 0)[None]).shape == (0, 64, 64, 2)


def test_ofsdi_is_the_mean_absolute_difference_of_consecutive_fields() -> None:
    flow = np.zeros((3, 2, 2, 2), dtype=np.float32)
    flow[:, 0, 1, 0] = [1.0, 4.0, 2.0]  # x: |3| + |-2| over two differences
    flow[:, 1, 0, 1] = [0.0, -1.0, -1.0]  # y: |-1| + |0|
    expected = np.zeros((2, 2, 2), dtype=np.float32)
    expected[0, 0, 1] = 2.5
    expected[1, 1, 0] = 0.5
    np.testing.assert_array_equal(flow_difference_image(flow), expected)


def test_ofsdi_of_a_constant_motion_is_zero() -> None:
    flow = np.broadcast_to(np.float32([1.7, -0.3]), (9, 8, 8, 2))
    assert not flow_difference_image(flow).any()


@pytest.mark.parametrize("fields", [0, 1])
def test_ofsdi_of_too_few_fields_is_zero(fields: int) -> None:
    image = flow_difference_image(np.ones((fields, 4, 4, 2), dtype=np.float32))
    assert image.shape == (2, 4, 4)
    assert not image.any()


@pytest.mark.parametrize(
    ("at", "length", "fields", "expected"),
    [
        (3, 4, 8, [1, 2, 3, 4]),
        (0, 4, 8, [0, 0, 0, 1]),
        (8, 4, 8, [6, 7, 7, 7]),  # the last of nine frames
        (1, 5, 1, [0, 0, 0, 0, 0]),  # a clip of two frames
        (2, 1, 8, [2]),
    ],
)
def test_a_stack_lies_around_its_frame_and_repeats_the_ends(
    at: int, length: int, fields: int, expected: list[int]
) -> None:
    assert stack_positions(at, length, fields).tolist() == expected


def test_a_stack_has_x_and_y_by_turns() -> None:
    flow = np.zeros((3, 1, 2, 2), dtype=np.float32)
    flow[..., 0] = np.float32([10, 20, 30])[:, None, None]
    flow[..., 1] = -flow[..., 0]
    stack = flow_stack(flow, np.array([2, 0]))
    assert stack.shape == (4, 1, 2)
    assert stack[:, 0, 1].tolist() == [30, -30, 10, -10]
