"""An artifact's weights, read back: the student computes what it did, and learns as it did."""

from __future__ import annotations

import warnings

import pytest
import torch

from kd_edge.export.onnx import to_onnx
from kd_edge.export.precision.fp16 import to_half
from kd_edge.models import ClipModel, ModelConfig, build_model
from kd_edge.models.layers import evaluating
from kd_edge.train.finetune.folded import calibrate, folded_pairs, unfolded
from kd_edge.train.finetune.graph import graph_weights

PX = 32
KINDS = [
    ("tiny", "tconv", 0),
    ("resnet10_thin", "tsm_causal", 0),
    pytest.param("resnet8_grid", "trn", 3, marks=pytest.mark.slow),  # torch's exporter takes seconds for each
    pytest.param("cnn4_grid", "tcn", 0, marks=pytest.mark.slow),
    pytest.param("mobilenet_v3_small", "tsn", 0, marks=pytest.mark.slow),
    pytest.param("efficientnet_lite0", "tsn", 0, marks=pytest.mark.slow),
    pytest.param("bninception", "tcn", 0, marks=pytest.mark.slow),
]


def trained(backbone: str, temporal: str, regressed: int, seed: int = 0) -> ClipModel:
    """A student whose normalisations and biases are no longer those it was built with."""
    torch.manual_seed(seed)
    values = {"backbone": backbone, "temporal": temporal, "hidden": 8, "bottleneck": 8, "dropout": 0.0}
    model = build_model(ModelConfig.model_validate(values | {"regressed": regressed}), 1, 5, 4)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.get_buffer("running_mean").uniform_(-0.2, 0.2)
            module.get_buffer("running_var").uniform_(0.6, 1.4)
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
        elif getattr(module, "bias", None) is not None:
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "temporal", "regressed"), KINDS)
def test_weights_that_are_read_back_compute_the_same_and_train_from_there(
    backbone: str, temporal: str, regressed: int
) -> None:
    there, here = (trained(backbone, temporal, regressed, seed) for seed in (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = to_onnx(there, in_channels=1, input_px=PX)
    found = unfolded(here, graph_weights(graph.SerializeToString()))
    own = here.state_dict()
    assert {key for key in own if "num_batches" not in key} == found.keys()
    here.load_state_dict(own | found)
    clips = torch.randn(6, 4, 1, PX, PX)
    with torch.no_grad():
        expected = there(clips)
        scale = float(expected.abs().max())
        torch.testing.assert_close(here(clips), expected, atol=1e-4 * scale, rtol=1e-4)
        pairs = folded_pairs(here)
        calibrate(here, pairs.values(), [clips[:4], clips[4:]])
        torch.testing.assert_close(here(clips), expected, atol=1e-4 * scale, rtol=1e-4)
        convolution, norm = next(iter(pairs.items()))
        assert here.get_submodule(norm).get_buffer("running_mean").abs().max() > 0
        assert here.get_submodule(convolution).weight.shape == there.get_submodule(convolution).weight.shape
        # What a batch has is what was found over the same clips: training computes what the source did.
        others = [m for path, m in here.named_modules() if isinstance(m, torch.nn.BatchNorm1d) and path == "head.norm"]
        if temporal != "trn" and not others:
            torch.testing.assert_close(here.train()(clips), expected, atol=1e-3 * scale, rtol=1e-3)


def test_every_folded_normalisation_follows_the_convolution_it_was_built_behind() -> None:
    pairs = folded_pairs(trained("tiny", "tconv", 0))
    assert pairs == {f"backbone.layer{k}.0": f"backbone.layer{k}.1" for k in (1, 2, 3, 4)} | {
        f"head.convolution{k}": f"head.norm{k}" for k in (1, 2)
    }


@pytest.mark.slow
def test_half_precision_is_the_weights_rounded() -> None:
    model = trained("tiny", "tconv", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = to_onnx(model, in_channels=1, input_px=PX)
        exact, rounded = (graph_weights(each.SerializeToString()) for each in (graph, to_half(graph)))
    assert exact.keys() == rounded.keys()
    for name, values in exact.items():
        assert values.dtype == rounded[name].dtype == torch.float32
        assert torch.equal(values.half().float(), rounded[name])
    linear = model.head.state_dict()
    assert torch.equal(exact["head.classifier.weight"], linear["classifier.weight"])


def test_a_calibration_is_the_mean_and_deviation_of_what_is_seen() -> None:
    """One convolution that doubles, over the values 1, 3 and -4: 2, 6 and -8 have the mean 0 and the variance 104/3."""
    model = trained("tiny", "tsn", 0)
    first = model.backbone.get_submodule("layer1")
    with torch.no_grad():
        first.get_submodule("0").weight.zero_()
        first.get_submodule("0").weight[:, :, 1, 1] = 2.0  # type: ignore[index]
        norm = first.get_submodule("1")
        norm.get_buffer("running_mean").zero_()
        norm.get_buffer("running_var").fill_(1.0)
        norm.bias.fill_(0.25)  # type: ignore[operator]
    clips = torch.stack([torch.full((4, 1, PX, PX), value) for value in (1.0, 3.0, -4.0)])
    with evaluating(model):
        calibrate(model, ["backbone.layer1.1"], [clips[:1], clips[1:]])
    assert norm.get_buffer("running_mean").tolist() == pytest.approx([0.0] * 8, abs=1e-6)
    assert norm.get_buffer("running_var").tolist() == pytest.approx([104 / 3] * 8, rel=1e-6)
    assert norm.weight.tolist() == pytest.approx([(104 / 3 + 1e-5) ** 0.5] * 8, rel=1e-6)  # type: ignore[operator]
    assert norm.bias.tolist() == pytest.approx([0.25] * 8)  # type: ignore[operator]
