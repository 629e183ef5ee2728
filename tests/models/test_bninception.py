"""BN-Inception against the published model definition, written down here as functions of the published names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_backbone, build_model
from kd_edge.models.backbones import start_from_motion
from kd_edge.models.bninception import CAFFE_MEAN, CAFFE_STD, SAKDN_BRANCHES, SAKDN_LAYERS, HalvingPool
from kd_edge.models.layers import list_layers

# Published name: input channels, output channels, kernel. The blocks' own are in BLOCKS.
STEM = {"conv1_7x7_s2": (3, 64, 7), "conv2_3x3_reduce": (64, 64, 1), "conv2_3x3": (64, 192, 3)}
# Block: input, 1x1, 3x3 reduce, 3x3, double reduce, double 1, double 2, projection; the sums are the next input.
BLOCKS = {
    "3a": (192, 64, 64, 64, 64, 96, 96, 32),
    "3b": (256, 64, 64, 96, 64, 96, 96, 64),
    "3c": (320, None, 128, 160, 64, 96, 96, None),
    "4a": (576, 224, 64, 96, 96, 128, 128, 128),
    "4b": (576, 192, 96, 128, 96, 128, 128, 128),
    "4c": (576, 160, 128, 160, 128, 160, 160, 128),
    "4d": (608, 96, 128, 192, 160, 192, 192, 128),
    "4e": (608, None, 128, 192, 192, 256, 256, None),
    "5a": (1056, 352, 192, 320, 160, 224, 224, 128),
    "5b": (1024, 352, 192, 320, 192, 224, 224, 128),
}
CONVOLUTIONS = 3 + 8 * 7 + 2 * 5


def published_convolutions() -> dict[str, tuple[int, int, int]]:
    found = dict(STEM)
    for name, (before, one, reduce, three, double_reduce, first, second, projection) in BLOCKS.items():
        block = f"inception_{name}"
        if one is not None:
            found[f"{block}_1x1"] = (before, one, 1)
        found[f"{block}_3x3_reduce"] = (before, reduce, 1)
        found[f"{block}_3x3"] = (reduce, three, 3)
        found[f"{block}_double_3x3_reduce"] = (before, double_reduce, 1)
        found[f"{block}_double_3x3_1"] = (double_reduce, first, 3)
        found[f"{block}_double_3x3_2"] = (first, second, 3)
        if projection is not None:
            found[f"{block}_pool_proj"] = (before, projection, 1)
    return found


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random weights with the published names and a classifier, float32; no layer dies or explodes."""
    draw = torch.Generator().manual_seed(7)
    state: dict[str, Tensor] = {}
    for name, (before, after, kernel) in published_convolutions().items():
        gain = (2 / (before * kernel**2)) ** 0.5 / (100 if name == "conv1_7x7_s2" else 1)
        state[f"{name}.weight"] = torch.randn(after, before, kernel, kernel, generator=draw) * gain
        state[f"{name}.bias"] = torch.randn(after, generator=draw) * 0.1
        state[f"{name}_bn.weight"] = torch.rand(after, generator=draw) + 0.5
        state[f"{name}_bn.bias"] = torch.randn(after, generator=draw) * 0.1
        state[f"{name}_bn.running_mean"] = torch.randn(after, generator=draw) * 0.1
        state[f"{name}_bn.running_var"] = torch.rand(after, generator=draw) + 0.5
    state["last_linear.weight"] = torch.randn(5, 1024, generator=draw)
    state["last_linear.bias"] = torch.randn(5, generator=draw)
    return state


def published_outputs(state: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    """The published network on B, G, R in 0..255 minus its mean, in float64: stem, blocks, paths and feature."""
    weights = {key: value.double() for key, value in state.items()}

    def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        x = functional.conv2d(x, kernel, weights[f"{name}.bias"], stride, kernel.shape[-1] // 2)
        mean, variance, scale, shift = (
            weights[f"{name}_bn.{leaf}"].reshape(1, -1, 1, 1)
            for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def halved(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    out: dict[str, Tensor] = {}
    x = halved(layer("conv1_7x7_s2", image.double(), 2))
    out["conv2"] = layer("conv2_3x3", layer("conv2_3x3_reduce", x))
    x = halved(out["conv2"])
    for name, (_, one, *_rest) in BLOCKS.items():
        block = f"inception_{name}"
        stride = 2 if one is None else 1
        paths = [] if one is None else [layer(f"{block}_1x1", x)]
        paths.append(layer(f"{block}_3x3", layer(f"{block}_3x3_reduce", x), stride))
        double = layer(f"{block}_double_3x3_1", layer(f"{block}_double_3x3_reduce", x))
        out[f"{block}.double_3x3_2"] = layer(f"{block}_double_3x3_2", double, stride)
        paths.append(out[f"{block}.double_3x3_2"])
        if stride == 2:
            paths.append(halved(x))
        else:
            max_pooled = name == "5b"
            pooled = functional.max_pool2d(x, 3, 1, 1) if max_pooled else functional.avg_pool2d(x, 3, 1, 1)
            out[f"{block}.pool_proj"] = layer(f"{block}_pool_proj", pooled)
            paths.append(out[f"{block}.pool_proj"])
        x = out[block] = torch.cat(paths, dim=1)
    out["feature"] = x.mean((2, 3))
    return out


def test_published_file_gives_the_published_function(published: dict[str, Tensor], tmp_path: Path) -> None:
    """A frame as kd-edge prepares it against the same frame as Caffe did: every tap of SAKDN and the feature."""
    torch.save(published, tmp_path / "bn_inception-0.pth")
    backbone = build_backbone("bninception", in_channels=3, weights=tmp_path / "bn_inception-0.pth").double().eval()
    frame = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))  # R, G, B
    seen: dict[str, Tensor] = {}
    taps = sorted({*SAKDN_LAYERS, *SAKDN_BRANCHES, *backbone.stages})
    for path in taps:
        backbone.get_submodule(path).register_forward_hook(lambda _m, _i, out, p=path: seen.__setitem__(p, out))
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (CAFFE_MEAN, CAFFE_STD))
    caffe = frame[:, (2, 1, 0)].double() - torch.tensor([104.0, 117.0, 128.0], dtype=torch.float64).view(3, 1, 1)
    with torch.no_grad():
        seen["feature"] = backbone((frame.double() / 255 - mean) / std)
        expected = published_outputs(published, caffe)
    for path in [*taps, "feature"]:
        assert expected[path].std() > 1e-3
        torch.testing.assert_close(seen[path], expected[path], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_the_input_channels_are_turned_round_for_the_published_file_only(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(published, tmp_path / "bn_inception-0.pth")
    backbone = build_backbone("bninception", in_channels=3, weights=tmp_path / "bn_inception-0.pth")
    first = backbone.get_submodule("conv1.conv").weight
    assert torch.equal(first[:, 0], published["conv1_7x7_s2.weight"][:, 2])
    assert torch.equal(first[:, 2], published["conv1_7x7_s2.weight"][:, 0])
    assert torch.equal(
        backbone.get_submodule("inception_4d.double_3x3_1.bn").running_var,
        published["inception_4d_double_3x3_1_bn.running_var"],
    )
    student = build_model(ModelConfig(backbone="bninception"), 3, 4, 2)
    student.backbone.load_state_dict(backbone.state_dict())
    save_file(student.state_dict(), tmp_path / "student.safetensors")  # as kd-edge saves it
    again = build_backbone("bninception", in_channels=3, weights=tmp_path / "student.safetensors")
    assert torch.equal(again.get_submodule("conv1.conv").weight, first)
    assert again.state_dict().keys() == backbone.state_dict().keys()


@pytest.mark.slow
def test_older_files_with_rows_for_the_norms_load_too(published: dict[str, Tensor], tmp_path: Path) -> None:
    older = {k: v.reshape(1, -1) if "_bn." in k else v for k, v in published.items()}
    torch.save(older, tmp_path / "older.pth")
    torch.save(published, tmp_path / "newer.pth")
    one, other = (
        build_backbone("bninception", in_channels=3, weights=tmp_path / f"{age}.pth").state_dict()
        for age in ("older", "newer")
    )
    assert all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.slow
def test_misfits_of_a_published_file_are_named(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({k: v for k, v in published.items() if not k.startswith("inception_5b")}, tmp_path / "part.pth")
    torch.save(published, tmp_path / "bn_inception-0.pth")
    flow = published | {"conv1_7x7_s2.weight": torch.zeros(64, 10, 7, 7)}
    torch.save(flow, tmp_path / "flow.pth")
    with pytest.raises(TrainingError, match=r"entries are missing, such as 'inception_5b\.1x1\.conv\.weight'"):
        build_backbone("bninception", in_channels=3, weights=tmp_path / "part.pth")
    with pytest.raises(TrainingError, match=r"'conv1\.conv\.weight' is \(64, 10, 7, 7\), not \(64, 3, 7, 7\)"):
        build_backbone("bninception", in_channels=3, weights=tmp_path / "flow.pth")
    with pytest.raises(TrainingError, match="none of their"):
        build_backbone("efficientnet_lite0", in_channels=3, weights=tmp_path / "bn_inception-0.pth")
    with pytest.raises(TrainingError, match="set initial_weights to a file"):
        build_backbone("bninception", in_channels=3, weights="imagenet")


def test_parameters_are_counted_by_hand() -> None:
    """A convolution has in * out * k^2 weights and out biases, its norm 2 * out: 10.3 million without a classifier."""
    layers = published_convolutions()
    assert len(layers) == CONVOLUTIONS == 69
    expected = sum(before * after * kernel**2 + 3 * after for before, after, kernel in layers.values())
    backbone = build_backbone("bninception", in_channels=3)
    assert sum(p.numel() for p in backbone.parameters()) == expected == 10_270_240
    for name, (before, *_widths) in BLOCKS.items():  # a block's input is the sum of the last one's paths
        assert backbone.get_submodule(f"inception_{name}.3x3_reduce.conv").in_channels == before


def test_layers_have_the_published_shapes_at_224() -> None:
    backbone = build_backbone("bninception", in_channels=3)
    shapes = {layer.path: layer.shape for layer in list_layers(backbone, (1, 3, 224, 224))}
    expected = {
        "conv1": (64, 112),
        "pool1": (64, 56),
        "conv2": (192, 56),
        "pool2": (192, 28),
        "inception_3a": (256, 28),
        "inception_3b": (320, 28),
        "inception_3c": (576, 14),
        "inception_4a": (576, 14),
        "inception_4b": (576, 14),
        "inception_4c": (608, 14),
        "inception_4d": (608, 14),
        "inception_4e": (1056, 7),
        "inception_5a": (1024, 7),
        "inception_5b": (1024, 7),
        "inception_3c.double_3x3_2": (96, 14),
        "inception_4c.pool_proj": (128, 14),
        "inception_5a.pool_proj": (128, 7),
        "inception_5b.pool_proj": (128, 7),
    }
    assert {path: shapes[path] for path in expected} == {p: (1, c, s, s) for p, (c, s) in expected.items()}
    assert set(SAKDN_LAYERS) | set(SAKDN_BRANCHES) <= set(expected)
    assert len(SAKDN_LAYERS) == len(SAKDN_BRANCHES) == 5


def test_halving_pool_by_hand() -> None:
    row = torch.tensor([[[[3.0, 1.0, 4.0, 1.0, 5.0]]]])
    assert HalvingPool()(row).tolist() == [[[[4.0, 5.0, 5.0]]]]  # windows 3 1 4, 4 1 5 and 5 at the edge
    assert HalvingPool()(row[..., :4]).tolist() == [[[[4.0, 4.0]]]]  # 3 1 4 and 4 1: the published ceil mode
    assert HalvingPool()(row[..., :1]).tolist() == [[[[3.0]]]]
    even = torch.rand(2, 3, 14, 28)
    assert torch.equal(HalvingPool()(even), functional.max_pool2d(even, 3, 2, ceil_mode=True))


@pytest.mark.parametrize("size", [8, 33, 47, 112])
def test_any_size_has_a_feature(size: int) -> None:
    """A side of 112 px has maps of 7 before 4e: the published pooling would put out one fewer than the convolutions."""
    backbone = build_backbone("bninception", in_channels=3).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, size, size)).shape == (1, 1024)


def test_no_tapped_output_is_changed_afterwards() -> None:
    backbone = build_backbone("bninception", in_channels=3).train()
    taps: dict[str, tuple[Tensor, Tensor]] = {}
    for path, module in backbone.named_modules():
        if path:
            module.register_forward_hook(lambda _m, _i, out, p=path: taps.__setitem__(p, (out, out.detach().clone())))
    backbone(torch.randn(2, 3, 64, 64)).sum().backward()
    assert len(taps) > 250
    assert all(torch.equal(out, then) for out, then in taps.values())


def test_one_channel_equals_the_same_image_three_times(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(published, tmp_path / "w.pt")
    three = build_backbone("bninception", in_channels=3, weights=tmp_path / "w.pt").eval()
    one = build_backbone("bninception", in_channels=1, weights=tmp_path / "w.pt").eval()
    gray = torch.randn(1, 1, 64, 64) * 100
    with torch.no_grad():
        expected = three(gray.expand(1, 3, 64, 64))
        torch.testing.assert_close(one(gray), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-3


def test_motion_stack_of_colour_frames_starts_from_differences() -> None:
    backbone = build_backbone("bninception", in_channels=9)
    start_from_motion(backbone, 3)
    convolution = backbone.get_submodule("conv1.conv")
    assert convolution.weight.shape == (64, 9, 7, 7)
    still = torch.randn(1, 3, 32, 32).repeat(1, 3, 1, 1)
    with torch.no_grad():
        response = (convolution(still) - convolution.bias.view(1, -1, 1, 1)).abs().amax((0, 2, 3))
    assert response[:32].max() < 1e-5
    assert response[32:].min() > 1e-3


def test_partial_bn_trains_the_first_norm_alone() -> None:
    model = build_model(ModelConfig(backbone="bninception", partial_bn=True), 1, 3, 2).train()
    norms = {p: m for p, m in model.backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert [path for path, norm in norms.items() if norm.training] == ["conv1.bn"]
    assert len(norms) == CONVOLUTIONS


def test_shifts_need_residual_blocks() -> None:
    with pytest.raises(ValueError, match="'bninception' has none"):
        ModelConfig(backbone="bninception", temporal="tsm_causal")
