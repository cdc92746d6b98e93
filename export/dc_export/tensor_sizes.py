"""How large the tensors of a graph become at a profile's largest shape."""

from __future__ import annotations

import math
from pathlib import Path

import onnx

from dc_export.shapes import Shapes
from dc_rt.engine import Profile
from dc_rt.errors import UserError
from dc_rt.pipeline import CHUNK

# TensorRT counts the elements of a tensor in 32 bits, in many of its layers.
MAX_ELEMENTS = 2**31


def check_tensor_sizes(path: Path, profile: Profile) -> None:
    """Raise `UserError` if a tensor of the graph has 2^31 elements or more at the profile's largest shape.

    Encoders and the decoder take a chunk of frames, the denoiser a window.

    Raises:
        UserError: names the node, its output's shape and the profile.
    """
    for node, shape in largest_shapes(path, profile):
        if math.prod(shape) >= MAX_ELEMENTS:
            raise UserError(
                f"The node {node} of {path.name} makes a tensor of {'x'.join(map(str, shape))} at the largest shape of "
                f"the profile {profile.name}, and TensorRT's limit is 2^31 elements; choose a profile of fewer frames "
                "or pixels (dc-export onnx --profile)."
            )


def largest_shapes(path: Path, profile: Profile) -> list[tuple[str, tuple[int, ...]]]:
    """Every node's name and the shape of each of its outputs, at the largest frames of each shape of `profile`."""
    model = onnx.load(path, load_external_data=False)
    found = []
    for shape in profile.shapes:
        height, width = shape.height.max, shape.width.max
        sizes = {"n": CHUNK, "T": profile.frames.max, "H": height, "W": width, "h": height // 8, "w": width // 8}
        shapes = Shapes(model, sizes, path.parent)
        found += [(node.name, each) for node in model.graph.node for each in shapes.follow(node)]
    return found
