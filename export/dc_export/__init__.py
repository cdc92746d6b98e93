"""From DepthCrafter's checkpoint to engine sets; `dc-export` on the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dc_export.build import build_engines
    from dc_export.export import export_onnx
    from dc_export.profiles import load_profile
    from dc_export.verify import GraphError, verify_engines

__all__ = ["GraphError", "build_engines", "export_onnx", "load_profile", "verify_engines"]

_HOMES = {
    "build_engines": "build",
    "export_onnx": "export",
    "load_profile": "profiles",
    "GraphError": "verify",
    "verify_engines": "verify",
}


def __getattr__(name: str) -> Any:
    # On demand, so that `dc-export --help` does not wait for PyTorch.
    if name in _HOMES:
        return getattr(import_module(f"dc_export.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
