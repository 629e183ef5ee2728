"""Encoders in ONNX files: what they put out of literal images, and every file that is none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torchvision.models import VisionTransformer

from kd_edge.errors import TrainingError
from kd_edge.preprocess import Preprocess
from kd_edge.train.inputs import encoder as module
from kd_edge.train.inputs.encoder import Encoder, file_hash
from tests.train.encoders import one_node, write_encoder

SPEC = Preprocess(channels=3, resize_px=36, input_px=32)
IMAGES = ("batch", 3, 32, 32)


def opened(file: Path, output: str | None = None, *, batch: int = 4, spec: Preprocess = SPEC) -> Encoder:
    return Encoder(file, spec, output, batch=batch, threads=1)


def quarters(count: int) -> np.ndarray:
    """Images whose channel c is 100 n + 10 c + q in quarter q of image n."""
    base = 100 * np.arange(count)[:, None, None, None] + 10 * np.arange(3)[:, None, None] + np.array([[0, 1], [2, 3]])
    return np.repeat(np.repeat(base, 16, axis=2), 16, axis=3).astype(np.float32)


@pytest.mark.parametrize(("batch", "at_once"), [("batch", 4), ("batch", 64), (2, 4), (1, 4)])
def test_embeddings_of_free_and_fixed_batches(tmp_path: Path, batch: int | str, at_once: int) -> None:
    found = opened(write_encoder(tmp_path / "a.onnx", batch=batch), batch=at_once)
    assert found.size == 12
    expected = [[100 * n + 10 * c + q for c in range(3) for q in range(4)] for n in range(5)]
    np.testing.assert_array_equal(found.embed(quarters(5)), np.array(expected, np.float32))


@pytest.mark.parametrize("output", ["maps", "tokens"])
def test_of_maps_and_tokens_the_mean_is_taken(tmp_path: Path, output: str) -> None:
    found = opened(write_encoder(tmp_path / "a.onnx", output=output))
    np.testing.assert_array_equal(found.embed(quarters(2)), [[1.5, 11.5, 21.5], [101.5, 111.5, 121.5]])


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    file = write_encoder(tmp_path / "a.onnx", output="all")
    assert (opened(file, "embedding").size, opened(file, "tokens").size) == (12, 3)
    with pytest.raises(TrainingError, match=r"has the outputs maps, embedding, tokens.*set teacher.output"):
        opened(file)
    with pytest.raises(TrainingError, match=r"no output 'token'.*did you mean 'tokens'"):
        opened(file, "token")


def test_free_height_and_width_take_what_the_preprocess_makes(tmp_path: Path) -> None:
    assert opened(write_encoder(tmp_path / "a.onnx", size="side", output="maps")).size == 3


def garbage(folder: Path) -> Path:
    (folder / "a.onnx").write_bytes(b"not a graph" * 100)
    return folder / "a.onnx"


def empty(folder: Path) -> Path:
    (folder / "a.onnx").write_bytes(b"")
    return folder / "a.onnx"


def external(folder: Path) -> Path:
    weights = np.ones((3, 32, 32, 32), np.float32)
    options = {"save_as_external_data": True, "location": "a.data", "size_threshold": 0}
    return one_node(folder / "a.onnx", "Conv", {"x": IMAGES}, ("batch", 3, 1, 1), {"w": weights[:, :3]}, options)


def two_inputs(folder: Path) -> Path:
    return one_node(folder / "a.onnx", "Add", {"left": IMAGES, "right": IMAGES}, IMAGES)


def constant(folder: Path) -> Path:
    """Puts the images of a batch together."""
    return one_node(folder / "a.onnx", "Reshape", {"x": IMAGES}, (1, "all"), {"to": np.array([1, -1])})


def infinite(folder: Path) -> Path:
    return one_node(folder / "a.onnx", "Flatten", {"x": IMAGES}, ("batch", 3072))


FAULTS: list[tuple[Callable[[Path], Path], str]] = [
    (lambda d: d / "none.onnx", r"no encoder .*none.onnx \(No such file"),
    (lambda d: d, r"no encoder .* \(it is not a file"),
    (garbage, r"refused by onnxruntime \(.*protobuf parsing failed"),
    (empty, r"refused by onnxruntime \(.*No graph"),
    (external, r"refused by onnxruntime \(.*External data.*holds its weights itself"),
    (two_inputs, r"has 2 inputs \(left, right\)"),
    (lambda d: write_encoder(d / "a.onnx", channels=1), r"takes images \(1, 32, 32\), .* makes \(3, 32, 32\)"),
    (lambda d: write_encoder(d / "a.onnx", size=64), r"takes images \(3, 64, 64\), .* makes \(3, 32, 32\)"),
    (lambda d: write_encoder(d / "a.onnx", batch=2000), "takes 2000 images at once"),
    (lambda d: write_encoder(d / "a.onnx", kind=TensorProto.FLOAT16), r"takes tensor\(float16\)"),
    (
        lambda d: one_node(d / "a.onnx", "Relu", {"x": ("batch", 3)}, ("batch", 3)),
        r"takes tensor\(float\) \(batch, 3\)",
    ),
    (
        lambda d: one_node(d / "a.onnx", "ArgMax", {"x": IMAGES}, ("batch", 1, 32, 32), kind=TensorProto.INT64, axis=1),
        r"puts out int64 \(1, 1, 32, 32\), which is not an embedding",
    ),
    (
        lambda d: one_node(d / "a.onnx", "ReduceMax", {"x": IMAGES}, (), keepdims=0),
        r"puts out float32 \(\), which is not an embedding",
    ),
    (constant, r"puts out float32 \(1, 6144\), which is not an embedding"),
    (
        lambda d: one_node(d / "a.onnx", "Reshape", {"x": IMAGES}, ("n", 5000), {"to": np.array([-1, 5000])}),
        r"does not run on images \(1, 3, 32, 32\)",
    ),
]


@pytest.mark.parametrize(("make", "message"), FAULTS)
def test_files_that_are_no_encoder(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        opened(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_weights_beside_the_file_are_refused_wherever_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their content is not in the file's hash: another's embeddings would be taken for these."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="holds its weights itself"):
        opened(external(tmp_path))


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    found = opened(infinite(tmp_path))
    images = np.zeros((3, 3, 32, 32), np.float32)
    assert found.embed(images).shape == (3, 3072)
    images[2, 0, 0, 0] = np.inf
    with pytest.raises(TrainingError, match="not finite"):
        found.embed(images)


def test_large_files_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_encoder(tmp_path / "a.onnx")
    monkeypatch.setattr(module, "LARGEST_FILE", 100)
    for look in (file_hash, opened):
        with pytest.raises(TrainingError, match="at most"):
            look(file)


def test_large_embeddings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_EMBEDDING", 11)
    with pytest.raises(TrainingError, match="D at most 11"):
        opened(write_encoder(tmp_path / "a.onnx"))


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    file = write_encoder(tmp_path / "a.onnx")
    before = file_hash(file)
    write_encoder(file, grid=4)
    after: Any = file_hash(file)
    assert before != after
    assert file_hash(write_encoder(tmp_path / "b.onnx", grid=4)) == after


@pytest.mark.slow
def test_a_vision_transformer_as_torch_exports_it(tmp_path: Path) -> None:
    """Its tokens, the class token among them, averaged; any number of images."""
    torch.manual_seed(0)
    network = VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4
    )

    class Tokens(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            patches = network._process_input(images)
            tokens = torch.cat([network.class_token.expand(len(images), -1, -1), patches], dim=1)
            found: torch.Tensor = network.encoder(tokens)
            return found

    model, file = Tokens().eval(), tmp_path / "vit.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        torch.onnx.export(
            model,
            (torch.randn(2, 3, 32, 32),),
            file,
            dynamo=True,
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: batch},),
            input_names=["pixel_values"],
            output_names=["last_hidden_state"],
        )
    images = torch.randn(7, 3, 32, 32)
    found = opened(file, batch=4)
    with torch.no_grad():
        expected = model(images).mean(dim=1).numpy()
    assert found.size == 8
    np.testing.assert_allclose(found.embed(images.numpy()), expected, atol=1e-5)
