"""Lazy imports of a package's public names (PEP 562), so that reading settings does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, module_of: Mapping[str, str]) -> Callable[[str], Any]:
    """Create the ``__getattr__`` of a package, which imports a name on first access.

    Args:
        package: ``__name__`` of the package.
        module_of: Maps each public name to the module of the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return get
