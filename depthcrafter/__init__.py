"""DepthCrafter in PyTorch: the reference that the exported graphs are held against."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthcrafter.checkpoint import load_image_encoder, load_scheduler, load_unet, load_vae
    from depthcrafter.layout import CONFIGS, CheckpointConfig
    from depthcrafter.random_checkpoint import make_checkpoint
    from depthcrafter.reference import DepthCrafterPipeline, load_pipeline
    from depthcrafter.source import find_checkpoint
    from depthcrafter.unet import DepthCrafterUNet

__all__ = [
    "CONFIGS",
    "CheckpointConfig",
    "DepthCrafterPipeline",
    "DepthCrafterUNet",
    "find_checkpoint",
    "load_image_encoder",
    "load_pipeline",
    "load_scheduler",
    "load_unet",
    "load_vae",
    "make_checkpoint",
]

_HOMES = {
    "CONFIGS": "layout",
    "CheckpointConfig": "layout",
    "DepthCrafterPipeline": "reference",
    "DepthCrafterUNet": "unet",
    "find_checkpoint": "source",
    "load_image_encoder": "checkpoint",
    "load_pipeline": "reference",
    "load_scheduler": "checkpoint",
    "load_unet": "checkpoint",
    "load_vae": "checkpoint",
    "make_checkpoint": "random_checkpoint",
}


def __getattr__(name: str) -> Any:
    # On demand, so that what the hub says does not wait for PyTorch.
    if name in _HOMES:
        return getattr(import_module(f"depthcrafter.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
