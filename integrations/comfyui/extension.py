"""The nodes that ComfyUI is told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import ComfyExtension, io

from . import schemas
from .missing import what_to_install


class DepthCrafterNodes(ComfyExtension):
    """All nodes of this pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes, or others in their place that say what is missing."""
        try:
            from .depth_of_video import DepthOfVideo
            from .load_depth_frames import LoadDepthFrames
        except ImportError as error:  # of dc-rt, or of what it stands on
            sentence = what_to_install(error)
            return [_that_says(sentence, schema) for schema in (schemas.depth_of_video, schemas.load_depth_frames)]
        return [DepthOfVideo, LoadDepthFrames]


def _that_says(sentence: str, schema: Callable[[list[io.Input], str], io.Schema]) -> type[io.ComfyNode]:
    """A node of this name and these outputs, whose description and error are the sentence."""

    class Missing(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return schema([], sentence)

        @classmethod
        def execute(cls, **inputs: Any) -> io.NodeOutput:
            raise RuntimeError(sentence)

    return Missing
