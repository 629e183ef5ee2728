from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import onnxruntime
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from kd_edge.artifact.graph import OPERATORS
from kd_edge.errors import ConfigError, TrainingError
from kd_edge.export.onnx import to_onnx
from kd_edge.models import ModelConfig, build_backbone, build_model
from kd_edge.models.backbones import GridPool, imagenet_state, start_from_motion
from kd_edge.models.config import BackboneName


@pytest.mark.slow
def test_torchvision_weights_load_and_give_torchvisions_features(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "r18.pth")
    save_file(reference.state_dict(), tmp_path / "r18.safetensors")
    image = torch.randn(2, 3, 64, 64)
    classifier, reference.fc = reference.fc, torch.nn.Identity()  # type: ignore[assignment]
    assert classifier.out_features == 1000
    for name in ("r18.pth", "r18.safetensors"):
        backbone = build_backbone("resnet18", in_channels=3, weights=tmp_path / name).eval()
        with torch.no_grad():
            torch.testing.assert_close(backbone(image), reference(image))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_lite0"])
def test_one_channel_equals_the_same_image_three_times(name: str, tmp_path: Path) -> None:
    three = build_backbone(name, in_channels=3).eval()
    torch.save(three.state_dict(), tmp_path / "w.pt")
    one = build_backbone(name, in_channels=1, weights=tmp_path / "w.pt").eval()
    gray = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(one(gray), three(gray.expand(1, 3, 64, 64)), rtol=1e-4, atol=1e-5)


def test_a_stack_of_colour_frames_is_seen_in_colour(tmp_path: Path) -> None:
    """Three equal frames give what the one colour image gave; swapped colours give something else."""
    three = build_backbone("tiny", in_channels=3).eval()
    save_file(three.state_dict(), tmp_path / "w.safetensors")
    nine = build_backbone("tiny", in_channels=9, weights=tmp_path / "w.safetensors").eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(nine(image.repeat(1, 3, 1, 1)), three(image), rtol=1e-4, atol=1e-5)
        swapped = nine(image.flip(1).repeat(1, 3, 1, 1))
    assert not torch.allclose(swapped, three(image), rtol=1e-2)


def test_unknown_backbone_names_the_close_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        build_backbone("resnet81", in_channels=3)


def test_weights_of_another_backbone_absent_and_damaged_are_one_line(tmp_path: Path) -> None:
    save_file(build_backbone("tiny", in_channels=3).state_dict(), tmp_path / "tiny.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"12345")
    torch.save({"model": {"a": 1}}, tmp_path / "nested.pt")
    for name in ("tiny.safetensors", "damaged.safetensors", "nested.pt", "absent.pt"):
        with pytest.raises(TrainingError) as caught:
            build_backbone("resnet10_thin", in_channels=3, weights=tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_every_misfit_is_named(tmp_path: Path) -> None:
    def fault(name: str, state: dict[str, torch.Tensor]) -> str:
        save_file(state, tmp_path / "w.safetensors")
        with pytest.raises(TrainingError) as caught:
            build_backbone(name, in_channels=3, weights=tmp_path / "w.safetensors")
        assert len(str(caught.value)) < 500  # not a list of every layer
        return caught.value.found

    resnet18 = torchvision.models.resnet18(weights=None).state_dict()
    deeper = torchvision.models.resnet34(weights=None).state_dict()  # has every entry of a ResNet18, and more
    assert "96 entries are of other layers, such as 'layer1.2." in fault("resnet18", deeper)
    assert "'layer1.0.conv1.weight' is (64, 64, 3, 3), not (64, 64, 1, 1)" in fault("resnet50", resnet18)
    half = {k: v for k, v in resnet18.items() if not k.startswith("layer4")}
    assert "entries are missing, such as 'layer4.0.conv1.weight'" in fault("resnet18", half)
    assert "none of their 122 entries is one of the backbone's, such as 'features.0.0" in fault(
        "mobilenet_v3_small", resnet18
    )
    assert "none of their 1 entries" in fault("tiny", {"fc.weight": torch.zeros(2)})


def test_weights_of_a_whole_student_load_into_another_temporal_kind(tmp_path: Path) -> None:
    """The classifier is left out, and a shifted backbone names its weights as a plain one does."""
    student = build_model(ModelConfig(backbone="efficientnet_lite0", temporal="tsm"), 3, 7, 4)
    save_file(student.state_dict(), tmp_path / "student.safetensors")
    backbone = build_backbone("efficientnet_lite0", in_channels=3, weights=tmp_path / "student.safetensors")
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, student.backbone.state_dict()[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "resnet10_thin", "mobilenet_v3_small", "efficientnet_lite0", "bninception"])
@pytest.mark.parametrize("channels", [1, 9])
def test_a_network_goes_on_from_its_own_weights_whatever_it_sees(
    name: BackboneName, channels: int, tmp_path: Path
) -> None:
    student = build_model(ModelConfig(backbone=name), channels, 7, 4)
    save_file(student.state_dict(), tmp_path / "student.safetensors")
    backbone = build_backbone(name, in_channels=channels, weights=tmp_path / "student.safetensors")
    for key, value in student.backbone.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], value), key


def test_weights_of_a_network_that_sees_something_else_are_told_with_both_numbers(tmp_path: Path) -> None:
    save_file(build_backbone("tiny", in_channels=9).state_dict(), tmp_path / "stack.safetensors")
    for channels, expected in ((3, "three"), (1, "1 or three"), (6, "6 or three")):
        with pytest.raises(TrainingError) as caught:
            build_backbone("tiny", in_channels=channels, weights=tmp_path / "stack.safetensors")
        assert "'layer1.0.weight' is (8, 9, 3, 3), not (8, 3, 3, 3)" in caught.value.found
        assert f"with {expected} input channels" in caught.value.expected
        assert (
            f"these have 9 channels, preprocess.channels times motion_offsets_ms makes {channels}" in caught.value.fix
        )


def test_imagenet_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(TrainingError, match="set initial_weights to that file"):
        build_backbone("resnet18", in_channels=3, weights="imagenet")
    with pytest.raises(TrainingError, match="no ImageNet weights for backbone 'tiny'"):
        build_backbone("tiny", in_channels=3, weights="imagenet")


@pytest.mark.parametrize("frame_channels", [1, 3])
def test_motion_start_is_blind_to_a_still_scene_in_half_of_the_filters(frame_channels: int) -> None:
    backbone = build_backbone("tiny", in_channels=3 * frame_channels)
    start_from_motion(backbone, frame_channels)
    convolution = backbone.get_submodule("layer1.0")
    still = torch.randn(1, frame_channels, 16, 16).repeat(1, 3, 1, 1)
    moving = torch.randn(1, 3 * frame_channels, 16, 16)
    with torch.no_grad():
        at_rest, in_motion = convolution(still).abs().amax((0, 2, 3)), convolution(moving).abs().amax((0, 2, 3))
    assert at_rest[:4].max() < 1e-6
    assert at_rest[4:].min() > 1e-3
    assert in_motion.min() > 1e-3


@pytest.mark.usefixtures("no_home")
def test_without_a_home_downloads_go_below_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would make a folder named ~ in the current one."""
    asked = []
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **how: asked.append(how) or {})
    monkeypatch.delenv("TORCH_HOME", raising=False)
    with pytest.raises(ConfigError, match="no folder for the cache"):
        imagenet_state("resnet18")
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path))
    imagenet_state("resnet18")
    monkeypatch.setenv("HOME", str(tmp_path))
    imagenet_state("resnet18")
    usual = {"progress": False, "check_hash": True, "weights_only": True}
    assert asked == [usual | {"model_dir": f"{tmp_path}/imagenet"}, usual]


@pytest.mark.parametrize(
    ("name", "px", "is_product"),
    [
        ("resnet8_grid", 40, True),  # maps of 3 x 3
        ("resnet8_grid", 64, False),
        pytest.param("resnet8_grid", 96, True, marks=pytest.mark.slow),
        pytest.param("cnn4_grid", 18, True, marks=pytest.mark.slow),
    ],
)
def test_a_grid_that_does_not_divide_the_picture_is_one_product_of_the_graph(
    name: BackboneName, px: int, is_product: bool
) -> None:
    """Written out, its overlapping parts are conditions, which no artifact may hold."""
    model = build_model(ModelConfig(backbone=name, temporal="tsn"), 1, 3, 2).eval()
    graph = to_onnx(model, in_channels=1, input_px=px)
    kinds = [node.op_type for node in graph.graph.node]
    assert set(kinds) <= OPERATORS
    assert ("MatMul" in kinds) == is_product
    assert ("AveragePool" in kinds) != is_product
    frame = torch.randn(2, 1, px, px)
    past = torch.zeros(2, 1, model.backbone.feature_size)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (feature,) = session.run(["feature"], {"frame": frame.numpy(), "past": past.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(feature), model.backbone(frame), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (5, 4), (6, 7), (1, 2), (12, 8)])
def test_a_grids_parts_are_those_of_adaptive_pooling(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(2, 3, height, width)
    expected = torch.nn.AdaptiveAvgPool2d(4)(maps).flatten(1)
    assert torch.equal(GridPool(4)(maps), expected)
    monkeypatch.setattr("torch.compiler.is_exporting", lambda: True)
    torch.testing.assert_close(GridPool(4)(maps), expected)
