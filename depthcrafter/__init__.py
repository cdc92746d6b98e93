"""DepthCrafter in PyTorch: the reference that the exported graphs are held against."""

from typing import TYPE_CHECKING

from dc_rt.on_demand import on_demand

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

# So that what the hub says does not wait for PyTorch.
__getattr__ = on_demand(
    __name__,
    checkpoint="load_image_encoder load_scheduler load_unet load_vae",
    layout="CONFIGS CheckpointConfig",
    random_checkpoint="make_checkpoint",
    reference="DepthCrafterPipeline load_pipeline",
    source="find_checkpoint",
    unet="DepthCrafterUNet",
)
