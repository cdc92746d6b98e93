"""DepthCrafter on ONNX Runtime or TensorRT: consistent depth for long videos, without PyTorch.

from dc_rt import DepthCrafter, Sampling

with DepthCrafter.load("engines/nano") as model:
    for depth in model(frames, Sampling(steps=5)):
        ...
"""

from typing import TYPE_CHECKING

from dc_rt.on_demand import on_demand

if TYPE_CHECKING:
    from dc_rt.engine import EngineSet, load_engines
    from dc_rt.errors import UserError
    from dc_rt.job import Delivery, Job, JobCancelled, deliver
    from dc_rt.media import VideoInfo, probe
    from dc_rt.model import DepthCrafter
    from dc_rt.noise import Noise, NoiseSource
    from dc_rt.options import Outputs, Sampling, Source

__all__ = [
    "Delivery",
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
    "deliver",
    "load_engines",
    "probe",
]

# So that `dc-rt --help` does not wait for NumPy.
__getattr__ = on_demand(
    __name__,
    _version="__version__",
    engine="EngineSet load_engines",
    errors="UserError",
    job="Delivery Job JobCancelled deliver",
    media="VideoInfo probe",
    model="DepthCrafter",
    noise="Noise NoiseSource",
    options="Outputs Sampling Source",
)
