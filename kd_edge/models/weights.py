"""Load weights from files, with explanations for files that are not accepted."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kd_edge.errors import TrainingError, reason
from kd_edge.rundir import STUDENT

NESTINGS = ("state_dict", "model_state_dict", "model", "net", "student")
"""Keys under which checkpoints store their weights, next to the optimiser's state and the epoch."""
_PARALLEL, _COMPILED = "module.", "_orig_mod."  # prefixes of (Distributed)DataParallel and torch.compile
COUNTER = "num_batches_tracked"  # unused by a batch norm with momentum, and missing in old weights
_SAVE = "correct the path, or save the tensors alone with torch.save(model.state_dict(), path)"


def local_state(path: Path, fix: str = _SAVE) -> dict[str, Tensor]:
    """Load a state dict from ``.safetensors``, or from a torch file with only tensors and plain values.

    Weights nested in a checkpoint under one of ``NESTINGS`` are extracted, and the prefixes that ``DataParallel`` and
    ``torch.compile`` add to their names are removed.

    Args:
        path: The file, or the folder of a run, whose student is loaded.
        fix: Advice for the error.

    Raises:
        TrainingError: The file is missing, damaged, or does not contain exactly one dictionary of tensors.
    """
    if (path / STUDENT).is_file():
        path = path / STUDENT
    try:
        found = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except Exception as error:  # torch and safetensors raise many types for a damaged file
        raise TrainingError(
            f"weights {path} cannot be read ({damage(path, error)})",
            "a state dict as .safetensors, .pt or .pth, or the folder of a run",
            fix,
        ) from error
    return _plain_names(_extract_state(found, path, fix))


def load_tensors(path: Path) -> Any:
    """Load a file of ``torch.save`` with only tensors and plain values, without running code from the file.

    Raises:
        Exception: One of many types, see ``damage``.
    """
    if is_zipfile(path):
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > path.stat().st_size:  # a decompression bomb: torch.save does not compress
            raise RuntimeError(f"it unpacks to {size:,} bytes, more than its size")
    return torch.load(path, map_location="cpu", weights_only=True)


def damage(path: Path, error: Exception) -> str:
    """Describe in one line what is wrong with a file of weights that raised an error."""
    if path.is_dir():
        return f"it is a folder without {STUDENT}"
    if path.suffix == ".onnx" and path.is_file():
        return "it is an artifact, a graph without trainable weights: name the run it was exported from"
    if isinstance(error, OSError) and not path.is_file():
        return error.strerror or str(error)
    if not path.stat().st_size:
        return "it is empty"
    foreign = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)", str(error))
    if foreign:
        return f"it contains {foreign[1]} besides tensors"
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch seeks beyond the end of a cut file
        return error.strerror or str(error)
    if path.suffix != ".safetensors" and not isinstance(error, RuntimeError):
        return "it is truncated, or was not written by torch.save"
    return reason(error).partition(". ")[0]  # torch's further sentences speculate about the cause


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], owner: str, *, whole: bool) -> str:
    """Describe why weights do not fit a network; empty if they fit.

    Args:
        wanted: State dict of the network.
        found: State dict to be loaded.
        owner: Name of the network, for the message.
        whole: Whether all entries must belong to the network; otherwise entries of other parts, such as a classifier,
            are ignored.
    """
    missing = [key for key in wanted if key not in found and not key.endswith(COUNTER)]
    parts = {key.partition(".")[0] for key in wanted}
    surplus = [key for key in found if key not in wanted and (whole or key.partition(".")[0] in parts)]
    if not wanted.keys() & found.keys():
        example = f"; they have entries such as '{next(iter(found))}'" if found else ""
        return f"none of their {len(found)} entries is one of the {owner}'s, such as '{missing[0]}'{example}"
    for key in (key for key in wanted if key in found):
        if found[key].shape != wanted[key].shape:
            return f"'{key}' is {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}"
    if missing:
        return f"{len(missing)} of {len(wanted)} entries are missing, such as '{missing[0]}'"
    return f"{len(surplus)} entries are of other layers, such as '{surplus[0]}'" if surplus else ""


def load_whole(model: nn.Module, found: Mapping[str, Tensor], owner: str) -> str:
    """Load all weights of a network; if they do not fit, load none and return the reason."""
    wanted = model.state_dict()
    fault = misfit(wanted, found, owner, whole=True)
    if not fault:
        model.load_state_dict(wanted | dict(found))
    return fault


def _extract_state(found: Any, path: Path, fix: str) -> dict[str, Tensor]:
    """Extract the only dictionary of tensors from the content of a file."""
    if _is_state(found):
        return found
    inside = {key: found[key] for key in NESTINGS if isinstance(found, dict) and _is_state(found.get(key))}
    if len(inside) == 1:
        return next(iter(inside.values()))
    raise TrainingError(
        f"weights {path} contain {_describe(found, inside)}",
        f"a dictionary of tensors by name, alone or under one of {', '.join(map(repr, NESTINGS))}",
        fix,
    )


def _is_state(found: Any) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(found, dict)
        and len(found) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items())
    )


def _describe(found: Any, inside: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return f"a {type(found).__name__}"
    if not found:
        return "an empty dictionary"
    if inside:
        return f"several dictionaries of tensors: {', '.join(map(repr, inside))}"
    named = [f"{key!r} ({type(value).__name__})" for key, value in list(found.items())[:5]]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"no weights but {', '.join(named)}{more}"


def _plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of parallel and compiled modules from the names, if all names have them."""
    for prefix in (_PARALLEL, _COMPILED, _PARALLEL):  # in either order
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
