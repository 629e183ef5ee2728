from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_edge.models import build_backbone
from kd_edge.study.classical.tstdds.config import StreamConfig
from kd_edge.study.classical.tstdds.networks import Stream, build_stream, shifted, train_stream
from kd_edge.types import Float32

TINY = StreamConfig(backbone="tiny", epochs=8, batch_size=8, learning_rate=0.01, layers=(1, 3))


def first_convolution(stream: Stream) -> nn.Conv2d:
    return next(m for m in stream.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("name", "channels"), [("spatial", 3), ("local", 20), ("global", 2)])
def test_each_stream_takes_its_own_channels(name: str, channels: int) -> None:
    stream = build_stream(TINY, name, classes=5, frame_channels=3)
    assert first_convolution(stream).in_channels == channels
    assert stream(torch.zeros(2, channels, 32, 32)).shape == (2, 5)


def test_maps_are_those_of_the_chosen_stages() -> None:
    stream = build_stream(TINY, "global", classes=3, frame_channels=1).train()
    inputs = torch.randn(5, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    first, third = stream.maps([inputs[:4].numpy(), inputs[4:].numpy()])
    stream.eval()
    with torch.no_grad():
        expected = stream.backbone.layer1(inputs)
        np.testing.assert_allclose(first, expected.numpy(), atol=1e-6)
        np.testing.assert_allclose(third, stream.backbone.layer3(stream.backbone.layer2(expected)).numpy(), atol=1e-6)
    assert (first.shape, third.shape) == ((5, 8, 16, 16), (5, 16, 4, 4))
    assert not any(module._forward_hooks for module in stream.modules())


def test_maps_of_a_linear_stage_are_their_positive_part() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("mobilenet_v3_small", in_channels=1)
    stream = Stream(backbone, 3, 0.5, (2,))
    inputs = torch.randn(2, 1, 32, 32)
    raw: list[Tensor] = []
    handle = backbone.get_submodule(backbone.stages[1]).register_forward_hook(lambda m, i, output: raw.append(output))
    (maps,) = stream.maps([inputs.numpy()])
    handle.remove()
    assert raw[0].min() < 0
    np.testing.assert_array_equal(maps, raw[0].clamp(min=0).numpy())


def test_a_shift_is_a_crop_of_the_repeated_border_and_every_input_has_its_own() -> None:
    base = torch.arange(64.0).reshape(1, 1, 8, 8)
    out = shifted(base.repeat(300, 1, 1, 1), np.random.default_rng(0))  # an eighth of the side: one pixel
    row, column = np.mgrid[:8, :8]
    crops = {
        (dy, dx): 8.0 * np.clip(row + dy, 0, 7) + np.clip(column + dx, 0, 7) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    }
    seen = {next(key for key, crop in crops.items() if np.array_equal(crop, one[0].numpy())) for one in out}
    assert seen == set(crops)


def images(labels: np.ndarray) -> Float32:
    """Class 0 is bright on the left, class 1 on the right; noise on top."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.3, (len(labels), 2, 32, 32))
    values[labels == 0, :, :, :12] += 1
    values[labels == 1, :, :, -12:] += 1
    return values.astype(np.float32)


def test_training_learns_and_repeats_with_its_seed() -> None:
    labels = np.arange(12) % 2
    given = images(labels)

    def trained(seed: int) -> tuple[dict[str, float], Tensor]:
        torch.manual_seed(0)
        stream = build_stream(TINY.model_copy(update={"dropout": 0.0}), "global", classes=2, frame_channels=1)
        epochs: list[int] = []
        result = train_stream(stream, lambda i, rng: given[i], labels, TINY, seed, epochs.append)
        assert epochs == list(range(1, 9))
        return result, first_convolution(stream).weight.detach()

    (first, weights), (again, same), (_, other) = trained(0), trained(0), trained(1)
    assert first["accuracy"] == 1
    assert first["loss"] < 0.3
    assert first == again
    assert torch.equal(weights, same)
    assert not torch.equal(weights, other)


def test_no_batch_is_left_with_a_single_input() -> None:
    """Batch normalisation over 1 x 1 maps cannot train on one."""
    sizes: list[int] = []

    class Counting(Stream):
        def forward(self, inputs: Tensor) -> Tensor:
            sizes.append(len(inputs))
            return super().forward(inputs)

    stream = Counting(build_backbone("tiny", in_channels=2), 2, 0.0, (1, 2))
    config = TINY.model_copy(update={"epochs": 1, "draws_per_clip": 1})
    labels = np.arange(9) % 2
    train_stream(stream, lambda i, rng: images(labels)[i], labels, config, 0, lambda epoch: None)
    assert sizes == [5, 4]  # not 8 and 1
