"""Floating-point operations and bytes of an ONNX graph, counted from its nodes at concrete sizes.

Counted are the products: MatMul, Gemm, Conv and Attention, two operations a multiplication. What lies between them
(normalisations, activations, sums, resizes) is taken as fused into them for nothing, so that both counts are least
ones: no implementation of these nodes does with fewer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

# Tensors up to this size may hold shapes, and are followed by value.
SMALL = 4096
# Nodes that multiply, or hide others that do: better to stop than to count too little.
UNCOUNTED = {
    *("ConvTranspose", "ConvInteger", "DeformConv", "Einsum", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    *("GRU", "If", "LSTM", "Loop", "RNN", "Scan"),
}


@dataclass(frozen=True)
class Cost:
    """Operations of a node, and the bytes that it reads and writes at least."""

    flops: int
    bytes: int

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The roofline (Williams et al., 2009): whichever of arithmetic and traffic takes longer."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


def count(path: Path, sizes: Mapping[str, int]) -> list[Cost]:
    """Cost of every product of the graph at `path`, its named axes of the given `sizes`.

    Raises:
        ValueError: an axis has no size, or the graph has a node that is not understood.
    """
    model = onnx.load(path, load_external_data=False)
    return count_model(model, sizes, path.parent)


def count_model(model: onnx.ModelProto, sizes: Mapping[str, int], folder: Path = Path()) -> list[Cost]:
    """As `count`, of a model in memory whose external data, if any, lies in `folder`."""
    walk = _Walk({entry.domain: entry.version for entry in model.opset_import}, model.ir_version)
    for value in model.graph.initializer:
        walk.types[value.name] = helper.make_tensor_type_proto(value.data_type, value.dims)
        if math.prod(value.dims) <= SMALL:
            if uses_external_data(value):
                load_external_data_for_tensor(value, str(folder))
            walk.values[value.name] = numpy_helper.to_array(value)
    for value in model.graph.input:
        if value.name not in walk.types:
            walk.types[value.name] = _concrete(value, sizes)
    return [cost for node in model.graph.node if (cost := walk.visit(node))]


class _Walk:
    """Types of all tensors and values of the small ones, node by node.

    onnx's own inference over a whole graph loses shapes that are computed within it; node by node, with the values
    that shapes are computed from, none is lost.
    """

    def __init__(self, opsets: dict[str, int], ir_version: int) -> None:
        self.opsets = opsets
        self.opset_imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self.ir_version = ir_version
        self.types: dict[str, TypeProto] = {}
        self.values: dict[str, NDArray[Any]] = {}

    def visit(self, node: NodeProto) -> Cost | None:
        if node.op_type in UNCOUNTED or node.domain not in ("", "ai.onnx"):
            raise ValueError(f"{node.op_type} nodes are not counted; teach them to {Path(__file__).name}.")
        self._evaluate(node)
        if node.output[0] not in self.values:
            self._infer(node)
        flops = self._flops(node)
        if flops is None:
            return None
        return Cost(flops, sum(self._bytes(name) for name in (*node.input, *node.output) if name))

    def _evaluate(self, node: NodeProto) -> None:
        """Follow the values of small tensors, which are what shapes are made of."""
        if node.op_type == "Shape":
            shape = np.array(self._shape(node.input[0]), np.int64)
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            outputs = [shape[attributes.get("start", 0) : attributes.get("end")]]
        elif all(name in self.values for name in node.input if name):
            inputs = {name: self.values[name] for name in node.input if name}
            outputs = ReferenceEvaluator(node, opsets=self.opsets).run(None, inputs)
        else:
            return
        for name, value in zip(node.output, outputs, strict=True):
            value = np.asarray(value)
            self.types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            if value.size <= SMALL:
                self.values[name] = value

    def _infer(self, node: NodeProto) -> None:
        if node.op_type == "GroupNormalization":  # a function of several nodes, which inference does not look into
            self.types[node.output[0]] = self.types[node.input[0]]
            return
        schema = onnx.defs.get_schema(node.op_type, self.opsets.get("", 1), node.domain)
        types = {name: self.types[name] for name in node.input if name}
        data = {name: numpy_helper.from_array(self.values[name], name) for name in types if name in self.values}
        inferred = infer_node_outputs(
            schema, node, types, data, opset_imports=self.opset_imports, ir_version=self.ir_version
        )
        for name in node.output:
            if name and name not in inferred:
                raise ValueError(f"The type of {name}, made by {node.op_type}, cannot be inferred.")
        self.types.update(inferred)
        for name in node.output:
            if name:
                self._shape(name)

    def _flops(self, node: NodeProto) -> int | None:
        if node.op_type == "MatMul":
            return 2 * self._size(node.output[0]) * self._shape(node.input[0])[-1]
        if node.op_type == "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return 2 * self._size(node.output[0]) * self._shape(node.input[0])[0 if transposed else 1]
        if node.op_type == "Conv":
            return 2 * self._size(node.output[0]) * math.prod(self._shape(node.input[1])[1:])
        if node.op_type == "Attention":
            return self._attention(node)
        return None

    def _attention(self, node: NodeProto) -> int:
        """Both products, in full even where a mask is causal; [batch, heads, length, width] or [batch, length, all]."""
        query, key = self._shape(node.input[0]), self._shape(node.input[1])
        if len(node.input) > 4:
            raise ValueError("Attention with a cache of past keys is not counted.")
        return 2 * key[-2] * (math.prod(query) + self._size(node.output[0]))

    def _shape(self, name: str) -> tuple[int, ...]:
        dims = self.types[name].tensor_type.shape.dim
        if not self.types[name].tensor_type.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
            raise ValueError(f"The shape of {name} cannot be inferred.")
        return tuple(dim.dim_value for dim in dims)

    def _size(self, name: str) -> int:
        return math.prod(self._shape(name))

    def _bytes(self, name: str) -> int:
        dtype = helper.tensor_dtype_to_np_dtype(self.types[name].tensor_type.elem_type)
        return self._size(name) * int(dtype.itemsize)


def _concrete(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> TypeProto:
    tensor = value.type.tensor_type
    shape = []
    for dim in tensor.shape.dim:
        if not dim.HasField("dim_value") and dim.dim_param not in sizes:
            raise ValueError(f"The axis {dim.dim_param or '?'} of {value.name} has no size.")
        shape.append(dim.dim_value if dim.HasField("dim_value") else sizes[dim.dim_param])
    return helper.make_tensor_type_proto(tensor.elem_type or TensorProto.FLOAT, shape)
