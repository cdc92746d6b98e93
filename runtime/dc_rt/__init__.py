"""DepthCrafter on ONNX Runtime or TensorRT: consistent depth for long videos, without PyTorch.

from dc_rt import DepthCrafter, Sampling

with DepthCrafter.load("engines/nano") as model:
    for depth in model(frames, Sampling(steps=5)):
        ...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dc_rt.engine import EngineSet, load_engines
    from dc_rt.errors import UserError
    from dc_rt.job import Job, JobCancelled
    from dc_rt.media import VideoInfo, probe
    from dc_rt.model import DepthCrafter
    from dc_rt.noise import Noise, NoiseSource
    from dc_rt.options import Outputs, Sampling, Source

_HOMES = {
    "DepthCrafter": "model",
    "EngineSet": "engine",
    "Job": "job",
    "JobCancelled": "job",
    "Noise": "noise",
    "NoiseSource": "noise",
    "Outputs": "options",
    "Sampling": "options",
    "Source": "options",
    "UserError": "errors",
    "__version__": "_version",
    "VideoInfo": "media",
    "load_engines": "engine",
    "probe": "media",
}

__all__ = [
    "DepthCrafter",
    "EngineSet",
    "Job",
    "JobCancelled",
    "Noise",
    "NoiseSource",
    "Outputs",
    "Sampling",
    "Source",
    "UserError",
    "VideoInfo",
    "__version__",
    "load_engines",
    "probe",
]


def __getattr__(name: str) -> Any:
    # On demand, so that `dc-rt --help` does not wait for NumPy.
    if name in _HOMES:
        return getattr(import_module(f"dc_rt.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
