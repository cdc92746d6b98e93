"""How large the tensors of a graph become at a profile's largest shape."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, TypeProto
from onnx.reference import ReferenceEvaluator

from dc_rt.engine import Profile
from dc_rt.errors import UserError
from dc_rt.pipeline import CHUNK

# TensorRT counts the elements of a tensor in 32 bits, in many of its layers.
MAX_ELEMENTS = 2**31
MAX_CONSTANT = 8  # elements of what may say a size, an axis or a scale


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
    """Every node's name and the shape of each of its outputs, at the largest shape of `profile`."""
    sizes = {
        "n": CHUNK,
        "T": profile.frames.max,
        "H": profile.height.max,
        "W": profile.width.max,
        "h": profile.height.max // 8,
        "w": profile.width.max // 8,
    }
    model = onnx.load(path, load_external_data=False)
    inference = _Inference(next(opset.version for opset in model.opset_import if opset.domain == ""))
    for value in model.graph.input:
        shape = [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim]
        inference.types[value.name] = onnx.helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shape)
    inference.run(model.graph)
    return inference.shapes


class _Inference:
    """Shape inference node by node, in which what shapes are computed from has values.

    (`onnx.shape_inference` follows integers through fewer operations than the exporter writes.)
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.types: dict[str, TypeProto] = {}
        self.constants: dict[str, Any] = {}
        self.shapes: list[tuple[str, tuple[int, ...]]] = []

    def run(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            self.types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            if math.prod(tensor.dims) <= MAX_CONSTANT and tensor.data_location != TensorProto.EXTERNAL:
                self.constants[tensor.name] = onnx.numpy_helper.to_array(tensor)
        for node in graph.node:
            for name, type_proto in self._outputs(node).items():
                self.types[name] = type_proto
                self.shapes.append((node.name, _shape(type_proto)))
            self._compute(node)

    def _outputs(self, node: onnx.NodeProto) -> dict[str, TypeProto]:
        if node.op_type == "GroupNormalization":  # which ONNX infers no shape for
            return {node.output[0]: self.types[node.input[0]]}
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        types = {name: self.types[name] for name in node.input if name}
        data = {
            name: onnx.numpy_helper.from_array(np.asarray(self.constants[name]), name)
            for name in node.input
            if name in self.constants
        }
        version = [onnx.helper.make_opsetid("", self.opset)]
        inferred: dict[str, TypeProto] = onnx.shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=version, ir_version=onnx.IR_VERSION
        )
        return inferred

    def _compute(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        integral = self.types[output].tensor_type.elem_type == TensorProto.INT64
        if node.op_type == "Shape":
            start, end = (next((a.i for a in node.attribute if a.name == name), None) for name in ("start", "end"))
            self.constants[output] = np.array(_shape(self.types[node.input[0]])[start:end])
        elif integral and all(name in self.constants for name in node.input):
            evaluator = ReferenceEvaluator(
                onnx.helper.make_model(
                    onnx.helper.make_graph(
                        [node],
                        "integers",
                        [onnx.helper.make_value_info(name, self.types[name]) for name in dict.fromkeys(node.input)],
                        [onnx.helper.make_value_info(output, self.types[output])],
                    ),
                    opset_imports=[onnx.helper.make_opsetid("", self.opset)],
                )
            )
            (self.constants[output],) = evaluator.run(None, {name: self.constants[name] for name in node.input})


def _shape(type_proto: TypeProto) -> tuple[int, ...]:
    dims = type_proto.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        raise ValueError(f"not a known shape: {type_proto}")
    return tuple(dim.dim_value for dim in dims)
