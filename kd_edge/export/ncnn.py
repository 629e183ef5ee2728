"""Convert a student to an ncnn model with pnnx, from the traced streaming step, and verify the result.

The ONNX file cannot be converted: pnnx silently turns the mean over time of the exported graph into a mean over another
axis, and the logits become NaN.
"""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kd_edge.artifact import Artifact
from kd_edge.engines import open_engine, state_names
from kd_edge.engines.base import Binding, carry
from kd_edge.engines.ncnn import PARAM, WEIGHTS, blob_sizes
from kd_edge.errors import ArtifactError, ExportError, reason
from kd_edge.models import ClipModel, StreamingStep
from kd_edge.models.heads import RelationHead
from kd_edge.models.shift import state_shapes
from kd_edge.packages import import_extra
from kd_edge.types import Float32

CONVERTER_SECONDS = 120.0
"""Time limit of the converter; a ResNet18 takes two seconds, a ResNet50 four."""
_FEW_PIXELS, _WITHOUT_WINOGRAD = 4, 64
"""Largest side in pixels at which Winograd's weights (four times as many) do not pay; layer option to disable them."""
_REMEDY = "leave out --with ncnn, or try another release of pnnx and ncnn"


class NcnnModel(NamedTuple):
    """A converted streaming step; its blobs have the names of the step's tensors.

    Attributes:
        param: The layers, as text.
        weights: The weights, in float32, or in float16 if requested.
        version: Version of pnnx.
    """

    param: str
    weights: bytes
    version: str

    @property
    def attachments(self) -> dict[str, bytes]:
        """The attachments for ``artifact.write``."""
        return {PARAM: self.param.encode(), WEIGHTS: self.weights}


def to_ncnn(
    model: ClipModel, *, in_channels: int, input_px: int, half: bool = False, seconds: float = CONVERTER_SECONDS
) -> NcnnModel:
    """Convert the streaming step of a clip model in eval mode. Check the result with ``verify``.

    Args:
        model: The student.
        in_channels: Input channels C.
        input_px: Side S of the input.
        half: Store the weights in float16; the arithmetic stays in float32.
        seconds: Time limit of the converter.

    Raises:
        MissingExtraError: pnnx is not installed.
        ExportError: The model needs future frames, or the conversion failed.
    """
    pnnx = import_extra("pnnx", "ncnn-export")
    if model.segments < 2:
        raise _conversion_error("windows of one segment have an empty past, on which ncnn crashes")
    inputs = _example_inputs(model, in_channels, input_px)
    try:
        param, weights = _convert(pnnx.EXEC_PATH, model, inputs, half, seconds)
    except OSError as error:
        raise _conversion_error(f"the step cannot be written for pnnx ({reason(error)})") from error
    outputs = ["feature", "logits", *state_names(len(inputs) - 2)[1]]
    names = {f"in{i}": name for i, name in enumerate(inputs)} | {f"out{i}": name for i, name in enumerate(outputs)}
    head, layers = _parse_layers(param)
    _rename_blobs(layers, names, inputs)
    try:
        _add_sizes(layers, blob_sizes(_serialise(head, layers), weights))
    except (ValueError, RuntimeError) as error:
        raise _conversion_error(f"ncnn cannot run what pnnx wrote ({reason(error)})") from error
    return NcnnModel(_serialise(head, layers), weights, pnnx.__version__)


def verify(model: ClipModel, artifact: Artifact, clips: Iterable[Float32], bound: float) -> dict[str, float]:
    """Verify the attached ncnn model against torch: features, logits and states of every step through whole clips.

    Both models carry their own features and states along, so that errors accumulate as on a robot.

    Args:
        model: The trained clip model, in eval mode.
        artifact: The artifact with the ncnn model.
        clips: Network inputs (T, C, S, S) float32.
        bound: Largest error that passes, relative to the largest value of the tensor over all clips.

    Returns:
        The relative error by output name.

    Raises:
        ExportError: An error exceeds the bound, ncnn refuses the model, or there is no clip.
        MissingExtraError: ncnn is not installed.
    """
    step = StreamingStep(model).eval()
    errors: dict[str, float] = {}
    largest: dict[str, float] = {}
    try:
        with open_engine(artifact, engine="ncnn", threads=1) as engine:
            binding = engine.bind(1)
            for clip in clips:
                for expected, found in _steps(step, binding, clip):
                    for name, truth in expected.items():
                        error = float(np.abs(truth - found[name]).max())
                        errors[name] = max(errors.get(name, 0.0), error if np.isfinite(error) else float("inf"))
                        largest[name] = max(largest.get(name, 0.0), float(np.abs(truth).max()))
    except ArtifactError as error:
        raise _conversion_error(error.found) from error
    if not errors:
        raise ExportError("no clip to verify the ncnn model on", "at least one", "kd-edge data check")
    relative = {name: error / (largest[name] or 1.0) for name, error in errors.items()}
    worst = max(relative, key=relative.__getitem__)
    if not relative[worst] <= bound:
        raise ExportError(
            f"the ncnn model's {worst} differs from the trained model's by {relative[worst]:.3g} of its largest value",
            f"at most {bound:.3g}",
            f"{_REMEDY}; nothing was written",
        )
    return relative


def _steps(
    step: StreamingStep, binding: Binding, clip: Float32
) -> Iterator[tuple[dict[str, Float32], dict[str, Float32]]]:
    """Iterate over the outputs of torch and of the engine, by name, for each frame of a clip from a reset state."""
    binding.reset()
    inputs = [torch.zeros(array.shape) for array in binding.inputs.values()]
    for frame in clip:
        inputs[0] = torch.from_numpy(frame)[None]
        with torch.inference_mode():
            outputs = step(*inputs)
        binding.frame[:] = frame
        binding.run()
        yield {n: t.numpy() for n, t in zip(binding.outputs, outputs, strict=True)}, binding.outputs
        feature, _, *states = outputs
        inputs[1:] = [torch.cat([inputs[1][:, 1:], feature[:, None]], dim=1), *states]
        binding.past[:] = np.concatenate([binding.past[:, 1:], binding.feature[:, None]], axis=1)
        carry(binding)


def _convert(
    program: str, model: ClipModel, inputs: dict[str, Tensor], half: bool, seconds: float
) -> tuple[bytes, bytes]:
    """Run pnnx on a step; return the layers and weights."""
    shapes = ",".join(str(list(tensor.shape)).replace(" ", "") for tensor in inputs.values())
    unwanted = [f"{kind}={os.devnull}" for kind in ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "step.pt").write_bytes(_trace(model, inputs))
        _run_converter([program, "step.pt", f"inputshape={shapes}", f"fp16={int(half)}", *unwanted], folder, seconds)
        try:
            return (folder / "step.ncnn.param").read_bytes(), (folder / "step.ncnn.bin").read_bytes()
        except FileNotFoundError as error:
            raise _conversion_error(f"pnnx wrote no model ({reason(error)})") from error


def _example_inputs(model: ClipModel, in_channels: int, input_px: int) -> dict[str, Tensor]:
    """Example inputs of the step by name, for one source."""
    shapes = [shape for _, shape in state_shapes(model.backbone, in_channels, input_px)]
    states_in, _ = state_names(len(shapes))
    return {
        "frame": torch.zeros(1, in_channels, input_px, input_px),
        "past": torch.zeros(1, model.segments - 1, model.backbone.feature_size),
        **{name: torch.zeros(1, *shape) for name, shape in zip(states_in, shapes, strict=True)},
    }


class _PlainRelationHead(RelationHead):
    """A relation head in operations that ncnn supports: it cannot gather, and pnnx stacks along a wrong axis.

    A product with zeros and ones selects segments exactly.
    """

    def join(self, projected: Tensor, relations: Tensor) -> Tensor:
        picked = functional.one_hot(relations.flatten(), projected.shape[1]).float() @ projected  # (B, R*k, H)
        return picked.reshape(len(projected), len(relations), -1)

    def forward(self, features: Tensor) -> Tensor:
        projected = self.project(features)
        return reduce(torch.add, (self._of_scale(i, projected) for i in range(len(self._scales))))


def _make_traceable(step: StreamingStep) -> StreamingStep:
    """Replace the step's relation head by one that pnnx can trace, with the same weights."""
    if isinstance(step.head, RelationHead):
        step.head = copy(step.head)
        step.head.__class__ = _PlainRelationHead
    return step


def _trace(model: ClipModel, inputs: dict[str, Tensor]) -> bytes:
    """Trace the step to TorchScript, in memory because torch ends the process when a disk is full."""
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing is deprecated, but pnnx reads nothing else; sizes may be frozen
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            _make_traceable(StreamingStep(model).eval()), tuple(inputs.values()), check_trace=False
        )
        torch.jit.save(traced, content)
    return content.getvalue()


def _run_converter(command: list[str], folder: Path, seconds: float) -> None:
    """Run the converter in a folder of its own, because it writes next to the model."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _conversion_error(f"pnnx did not finish within {seconds:g} s{_last_line(error.stdout)}") from error
    except OSError as error:
        raise _conversion_error(f"pnnx cannot be run ({reason(error)})") from error
    if done.returncode != 0:
        raise _conversion_error(f"pnnx exited with {done.returncode}{_last_line(done.stdout)}")


def _last_line(output: bytes | None) -> str:
    lines = [line.strip() for line in (output or b"").decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""


def _parse_layers(param: bytes) -> tuple[str, list[_Layer]]:
    """Parse the head and the layers of an ncnn net.

    Raises:
        ExportError: The text is not a complete net.
    """
    try:
        magic, counts, *lines = param.decode().splitlines()
        if int(counts.split()[0]) != len(lines):
            raise ValueError(f"{len(lines)} layers of {counts.split()[0]}")
        return f"{magic}\n{counts}\n", [_Layer.of(line) for line in lines]
    except (ValueError, IndexError) as error:
        raise _conversion_error(f"pnnx wrote an incomplete model ({reason(error)})") from error


@dataclass
class _Layer:
    """One line of an ncnn net: kind, name, number of inputs and outputs, names of these blobs, options."""

    kind: str
    name: str
    inputs: int
    blobs: list[str]
    options: list[str]

    @classmethod
    def of(cls, line: str) -> _Layer:
        kind, name, inputs, outputs, *words = line.split()
        count = int(inputs) + int(outputs)
        return cls(kind, name, int(inputs), words[:count], words[count:])

    @property
    def outputs(self) -> list[str]:
        return self.blobs[self.inputs :]

    def __str__(self) -> str:
        return " ".join([self.kind, self.name, str(self.inputs), str(len(self.outputs)), *self.blobs, *self.options])


def _rename_blobs(layers: list[_Layer], names: dict[str, str], inputs: dict[str, Tensor]) -> None:
    """Rename the blobs to the step's tensors, and set the sizes of its inputs, innermost first."""
    for layer in layers:
        layer.blobs = [names.get(blob, blob) for blob in layer.blobs]
        if layer.kind == "Input":
            sizes = reversed(inputs[layer.blobs[0]].shape[1:])
            layer.options = [f"{key}={size}" for key, size in enumerate(sizes)]
    known = {blob for layer in layers for blob in layer.blobs}
    if missing := [name for name in names.values() if name not in known]:
        raise _conversion_error(f"pnnx wrote a model without {missing[0]}")


def _add_sizes(layers: list[_Layer], sizes: dict[str, tuple[int, ...]]) -> None:
    """Add the output sizes to every layer, so that ncnn transforms weights only where that pays off.

    A ResNet18 is twice as fast at 112 pixels, and takes 70 MB less.
    """
    for layer in layers:
        found = [size for blob in layer.outputs for size in sizes[blob]]
        layer.options.append(f"-23330={len(found)},{','.join(map(str, found))}")
        if layer.kind == "Convolution" and max(sizes[layer.outputs[0]][1:3]) <= _FEW_PIXELS:
            layer.options.append(f"31={_WITHOUT_WINOGRAD}")


def _serialise(head: str, layers: list[_Layer]) -> str:
    return head + "".join(f"{layer}\n" for layer in layers)


def _conversion_error(found: str) -> ExportError:
    return ExportError(found, "a model that pnnx and ncnn can convert", f"{_REMEDY}; nothing was written")
