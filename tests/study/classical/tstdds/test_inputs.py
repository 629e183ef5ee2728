from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kd_edge.study.classical.tstdds import inputs
from kd_edge.study.classical.tstdds.flow import optical_flow
from kd_edge.study.classical.tstdds.inputs import global_input, local_input, spatial_inputs, training_draw, video_inputs
from kd_edge.study.classical.tstdds.videos import UInt8
from kd_edge.types import Int64


class FewVideos:
    """Stands for ``Videos``: two clips of textures that move differently."""

    def __init__(self) -> None:
        y, x = np.mgrid[:32, :32].astype(float)

        def film(frames: int, speed: float) -> UInt8:
            moved = [127 + 60 * np.sin(0.6 * (x - speed * t * t)) + 60 * np.cos(0.5 * y) for t in range(frames)]
            return np.round(np.stack(moved)).astype(np.uint8)

        self._films = {"a": film(9, 0.1), "b": film(4, -0.2)}

    def length(self, sample_id: str) -> int:
        return len(self._films[sample_id])

    def frames(self, sample_id: str, at: Int64 | None = None) -> UInt8:
        film = self._films[sample_id]
        return film if at is None else film[at]


class Fixed:
    """Stands for a generator that always draws the same frame."""

    def __init__(self, value: int) -> None:
        self._value = value

    def integers(self, high: int, size: int | None = None) -> Any:
        assert self._value < high
        return self._value if size is None else np.full(size, self._value)


@pytest.mark.parametrize("name", ["spatial", "local"])
@pytest.mark.parametrize(("clip", "at"), [(0, 0), (0, 4), (0, 8), (1, 3)])
def test_a_training_input_is_the_one_that_is_pooled_later(name: str, clip: int, at: int) -> None:
    videos: Any = FewVideos()
    generator: Any = Fixed(at)
    drawn = training_draw(name, videos, ["a", "b"], flow_fields=6)(clip, generator)
    frames = videos.frames("ab"[clip])
    pooled = np.concatenate(list(video_inputs(name, frames, optical_flow(frames), flow_fields=6)))
    assert len(pooled) == len(frames)
    assert drawn.shape == ((1, 32, 32) if name == "spatial" else (12, 32, 32))
    np.testing.assert_array_equal(drawn, pooled[at])


def test_the_global_stream_has_one_image_per_clip() -> None:
    videos: Any = FewVideos()
    frames = videos.frames("b")
    drawn = training_draw("global", videos, ["a", "b"], flow_fields=6)(1, np.random.default_rng(0))
    (pooled,) = video_inputs("global", frames, optical_flow(frames), flow_fields=6)
    assert pooled.shape == (1, 2, 32, 32)
    np.testing.assert_array_equal(drawn, pooled[0])


@pytest.mark.parametrize("name", ["spatial", "local"])
def test_a_long_video_comes_in_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = FewVideos().frames("a")
    flow = optical_flow(frames)
    (at_once,) = video_inputs(name, frames, flow, flow_fields=3)
    monkeypatch.setattr(inputs, "_BATCH", 4)
    batches = list(video_inputs(name, frames, flow, flow_fields=3))
    assert [len(b) for b in batches] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(batches), at_once)


def test_gray_levels_become_minus_two_to_two() -> None:
    frames = np.array([[[0, 255], [51, 204]]], dtype=np.uint8)
    np.testing.assert_allclose(spatial_inputs(frames), [[[[-2, 2], [-1.2, 1.2]]]], atol=1e-6)


def test_colour_frames_keep_their_channels() -> None:
    frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    frames[..., 2] = 255
    values = spatial_inputs(frames)
    assert values.shape == (2, 3, 4, 4)
    assert values[:, :2].max() == -2
    assert values[:, 2].min() == 2


def test_flow_is_measured_in_twelfths_of_the_side_and_clipped() -> None:
    flow = np.zeros((1, 24, 24, 2), dtype=np.float32)
    flow[..., 0], flow[..., 1] = 1.0, -50.0
    stack = local_input(flow, np.array([0]))
    assert stack[0].min() == stack[0].max() == 0.5
    assert stack[1].min() == stack[1].max() == -1


def test_the_ofsdi_is_scaled_by_its_own_maximum() -> None:
    flow = np.zeros((2, 4, 4, 2), dtype=np.float32)
    flow[1, 0, 0, 0], flow[1, 2, 1, 1] = 0.3, -0.06
    image = global_input(flow)
    assert image[0, 0, 0] == 1
    assert image[1, 2, 1] == pytest.approx(0.2)
    assert np.count_nonzero(image) == 2
    assert not global_input(np.zeros_like(flow)).any()
