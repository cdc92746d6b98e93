"""DepthCrafter-RT's nodes for ComfyUI: depth of a video from file to files, in memory that its length does not change.

Link or copy this folder into ComfyUI's `custom_nodes`; README.md says more. Nothing of ComfyUI is imported before it
asks for the nodes, and nothing of dc-rt before that either: where dc-rt is missing, the nodes say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls to learn of the nodes."""
    from .extension import DepthCrafterNodes

    return DepthCrafterNodes()
