"""DepthCrafter on ONNX Runtime or TensorRT: consistent depth for long videos, without PyTorch.

from dc_rt import DepthCrafter

model = DepthCrafter.load("engines/nano")
for depth in model(frames):
    ...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dc_rt.engine import EngineSet, load_engines
    from dc_rt.errors import UserError
    from dc_rt.noise import Noise, NoiseSource
    from dc_rt.pipeline import DepthCrafter

__all__ = ["DepthCrafter", "EngineSet", "Noise", "NoiseSource", "UserError", "load_engines"]

_HOMES = {
    "DepthCrafter": "pipeline",
    "EngineSet": "engine",
    "Noise": "noise",
    "NoiseSource": "noise",
    "UserError": "errors",
    "load_engines": "engine",
}


def __getattr__(name: str) -> Any:
    # On demand, so that `dc-rt --help` does not wait for NumPy.
    if name in _HOMES:
        return getattr(import_module(f"dc_rt.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
