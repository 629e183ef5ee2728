"""A frozen image encoder in an ONNX file, checked when opened and run on the CPU."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import TrainingError, did_you_mean, reason
from kd_edge.preprocess import Preprocess
from kd_edge.types import Float32

LARGEST_FILE = 2 * 1024**3
"""Largest size in bytes: an ONNX file cannot be larger."""
LARGEST_EMBEDDING = 8192
_LARGEST_BATCH = 1024
_FIX = "correct teacher.file"


class Encoder:
    """Images (N, C, S, S) to embeddings (N, D).

    An output (B, D) is the embedding. Of tokens (B, N, D) it is their mean, a class token among them included; of maps
    (B, D, H, W) the mean over the map.

    Args:
        file: The graph: one float32 input (batch, C, S, S), of a fixed or a free batch. It holds its weights itself.
        spec: What its images are prepared by; decides C and S.
        output: Name of the graph's output that is taken; None takes the only one.
        batch: Images at once, where the graph leaves that free.
        threads: Of the processor.

    Attributes:
        size: D.

    Raises:
        TrainingError: No such file, too large, no ONNX, or a graph that does not do this.
    """

    def __init__(self, file: Path, spec: Preprocess, output: str | None = None, *, batch: int, threads: int) -> None:
        self._file = file
        self._shape = spec.input_channels, spec.input_px, spec.input_px
        self._session = _session(file, threads)
        self._input, fixed = self._found_input()
        self._output = self._found_output(output)
        self._batch = batch if fixed is None else fixed
        self.size = self._measured(1 if fixed is None else fixed)
        if fixed is None:  # does it keep the images of a batch apart?
            self._measured(2)

    def embed(self, images: Float32) -> Float32:
        """Embeddings (N, D) of images (N, C, S, S).

        Raises:
            TrainingError: The graph fails, or says something that is no number.
        """
        parts = []
        for first in range(0, len(images), self._batch):
            part = images[first : first + self._batch]
            found = self._run(part)[: len(part)]
            if not np.isfinite(found).all():
                raise self._refused(
                    "puts out numbers that are not finite", "finite embeddings", "check the encoder and its preprocess"
                )
            parts.append(found)
        return np.concatenate(parts)

    def _run(self, images: Float32) -> Float32:
        """(B, D) of a batch; one of fewer images than the graph takes is filled up."""
        missing = self._batch - len(images) if self._is_fixed else 0
        if missing:
            images = np.concatenate([images, np.zeros((missing, *self._shape), np.float32)])
        try:
            (found,) = self._session.run([self._output], {self._input: images})
        except Exception as error:  # an engine's exceptions are its own
            raise self._refused(
                f"does not run on images {images.shape} ({reason(error)})", "a graph of such images", _FIX
            ) from error
        if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.ndim not in (2, 3, 4):
            raise self._no_embedding(found)
        if found.ndim == 3:
            found = found.mean(axis=1)  # (B, N, D) -> (B, D)
        elif found.ndim == 4:
            found = found.mean(axis=(2, 3))  # (B, D, H, W) -> (B, D)
        embeddings: Float32 = found
        return embeddings

    def _measured(self, count: int) -> int:
        """Size of the embeddings, from a run on black images."""
        found = self._run(np.zeros((count, *self._shape), np.float32))
        if len(found) != count or not 1 <= found.shape[1] <= LARGEST_EMBEDDING:
            raise self._no_embedding(found)
        return int(found.shape[1])

    def _found_input(self) -> tuple[str, int | None]:
        """Name of the graph's input, and its batch size; None if that is dynamic."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(node.name for node in inputs)
            raise self._refused(f"has {len(inputs)} inputs ({names})", "one: the images", _FIX)
        (node,) = inputs
        shape, wanted = list(node.shape), self._shape
        if node.type != "tensor(float)" or len(shape) != 4:
            raise self._refused(
                f"takes {node.type} {_written(shape)}",
                f"float32 images (batch, {wanted[0]}, {wanted[1]}, {wanted[2]})",
                _FIX,
            )
        if any(isinstance(found, int) and found != size for found, size in zip(shape[1:], wanted, strict=True)):
            raise self._refused(
                f"takes images {_written(shape[1:])}, teacher.preprocess makes {_written(wanted)}",
                "the same channels, height and width",
                "set teacher.preprocess.channels, replicate and input_px, or export the encoder for such images",
            )
        fixed = shape[0] if isinstance(shape[0], int) else None
        if fixed is not None and not 1 <= fixed <= _LARGEST_BATCH:
            raise self._refused(f"takes {fixed} images at once", f"1 to {_LARGEST_BATCH}", _FIX)
        self._is_fixed = fixed is not None
        return node.name, fixed

    def _found_output(self, wanted: str | None) -> str:
        names: Sequence[str] = [node.name for node in self._session.get_outputs()]
        if wanted is None and len(names) == 1:
            return names[0]
        if wanted in names and wanted is not None:
            return wanted
        found = f"has the outputs {', '.join(names)}"
        if wanted is not None:
            found = f"has no output '{wanted}'{did_you_mean(wanted, names)}"
        raise self._refused(found, f"one of {', '.join(names)}", "set teacher.output to the one that is the embedding")

    def _no_embedding(self, found: Any) -> TrainingError:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        return self._refused(
            f"puts out {what}, which is not an embedding",
            f"float32 (batch, D), tokens (batch, N, D) or maps (batch, D, H, W), D at most {LARGEST_EMBEDDING}",
            "set teacher.output to another one, or export the encoder without its classifier",
        )

    def _refused(self, found: str, expected: str, fix: str) -> TrainingError:
        return TrainingError(f"encoder {self._file} {found}", expected, fix)


def file_hash(file: Path) -> str:
    """SHA-256 (hex) of an encoder's file; re-read only if the file changed.

    Raises:
        TrainingError: No such file, or too large.
    """
    status = _status(file)
    return _hash(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _hash(file: Path, modified_ns: int, size: int) -> str:
    return hashlib.sha256(_content(file)).hexdigest()


def _status(file: Path) -> Any:
    try:
        status = file.stat()
        if not file.is_file():
            raise OSError("it is not a file")
    except OSError as error:
        raise TrainingError(
            f"no encoder {file} ({error.strerror or error})", "an image encoder as ONNX", _FIX
        ) from error
    if status.st_size > LARGEST_FILE:
        raise TrainingError(
            f"encoder {file} has {status.st_size / 1e9:.1f} GB", f"at most {LARGEST_FILE / 1e9:.1f} GB", _FIX
        )
    return status


def _content(file: Path) -> bytes:
    _status(file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise TrainingError(f"encoder {file} cannot be read ({error.strerror or error})", "a file", _FIX) from error


def _session(file: Path, threads: int) -> Any:
    """ONNX Runtime session of a file's content; external weights are refused, as ``file_hash`` does not cover them."""
    content = _content(file)
    library = load_onnxruntime()
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters comes back as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        with tempfile.TemporaryDirectory() as empty:  # else it would look for them in the working directory
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
            return library.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # an engine's exceptions are its own
        raise TrainingError(
            f"encoder {file} is refused by onnxruntime ({reason(error)})",
            "a whole ONNX file that holds its weights itself, not in files beside it",
            "restore a damaged one; else onnx.save(onnx.load(FILE), NEW) puts everything into one file",
        ) from error


def _written(shape: Sequence[Any]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
