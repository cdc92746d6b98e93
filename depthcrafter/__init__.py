"""DepthCrafter in PyTorch: the reference that the exported graphs are held against."""

from depthcrafter.checkpoint import load_image_encoder, load_scheduler, load_unet, load_vae
from depthcrafter.pipeline import DepthCrafterPipeline, load_pipeline
from depthcrafter.random_checkpoint import CONFIGS, CheckpointConfig, make_checkpoint
from depthcrafter.unet import DepthCrafterUNet

__all__ = [
    "CONFIGS",
    "CheckpointConfig",
    "DepthCrafterPipeline",
    "DepthCrafterUNet",
    "load_image_encoder",
    "load_pipeline",
    "load_scheduler",
    "load_unet",
    "load_vae",
    "make_checkpoint",
]
