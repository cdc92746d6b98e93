"""Names of a package whose modules are imported when they are asked for: what says no wait for PyTorch has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_demand(package: str, **modules: str) -> Callable[[str], Any]:
    """A package's `__getattr__`: its names, by the module of it that each is in, several apart by spaces."""
    homes: Mapping[str, str] = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
