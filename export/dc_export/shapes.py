"""Shapes of all tensors of an ONNX graph at concrete sizes, node by node.

`onnx.shape_inference` over a whole graph loses shapes that are computed within it, and ONNX Runtime's symbolic one does
not get through three of our four graphs; node by node, with the values that shapes are computed from, none is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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


class Shapes:
    """What is known of a graph's tensors, up to the node that was followed last.

    Args:
        model: its weights may be left out.
        sizes: of the axes that the inputs' shapes name.
        folder: where weights that are beside the graph lie.

    Raises:
        ValueError: an axis has no size.
    """

    def __init__(self, model: onnx.ModelProto, sizes: Mapping[str, int], folder: Path = Path()) -> None:
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._ir_version = model.ir_version
        self._types: dict[str, TypeProto] = {}
        self._values: dict[str, NDArray[Any]] = {}
        for value in model.graph.initializer:
            self._types[value.name] = helper.make_tensor_type_proto(value.data_type, value.dims)
            if math.prod(value.dims) <= SMALL:
                if uses_external_data(value):
                    load_external_data_for_tensor(value, str(folder))
                self._values[value.name] = numpy_helper.to_array(value)
        for value in model.graph.input:
            if value.name not in self._types:
                self._types[value.name] = _concrete(value, sizes)

    def follow(self, node: NodeProto) -> list[tuple[int, ...]]:
        """The shapes of a node's outputs, once all before it were followed.

        Raises:
            ValueError: one cannot be inferred.
        """
        self._evaluate(node)
        if node.output[0] not in self._values:
            self._infer(node)
        return [self.shape(name) for name in node.output if name]

    def shape(self, name: str) -> tuple[int, ...]:
        """That of a tensor."""
        tensor = self._types[name].tensor_type
        if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            raise ValueError(f"The shape of {name} cannot be inferred.")
        return tuple(dim.dim_value for dim in tensor.shape.dim)

    def size(self, name: str) -> int:
        """Elements of a tensor."""
        return math.prod(self.shape(name))

    def bytes(self, name: str) -> int:
        """What a tensor takes."""
        dtype = helper.tensor_dtype_to_np_dtype(self._types[name].tensor_type.elem_type)
        return self.size(name) * int(dtype.itemsize)

    def _evaluate(self, node: NodeProto) -> None:
        """Follow the values of small tensors, which are what shapes are made of."""
        if node.op_type == "Shape":
            shape = np.array(self.shape(node.input[0]), np.int64)
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            outputs = [shape[attributes.get("start", 0) : attributes.get("end")]]
        elif all(name in self._values for name in node.input if name):
            inputs = {name: self._values[name] for name in node.input if name}
            outputs = ReferenceEvaluator(node, opsets=self._opsets).run(None, inputs)
        else:
            return
        for name, value in zip(node.output, outputs, strict=True):
            value = np.asarray(value)
            self._types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            if value.size <= SMALL:
                self._values[name] = value

    def _infer(self, node: NodeProto) -> None:
        if node.op_type == "GroupNormalization":  # a function of several nodes, which inference does not look into
            self._types[node.output[0]] = self._types[node.input[0]]
            return
        schema = onnx.defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
        types = {name: self._types[name] for name in node.input if name}
        data = {name: numpy_helper.from_array(self._values[name], name) for name in types if name in self._values}
        imports = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        self._types |= infer_node_outputs(schema, node, types, data, opset_imports=imports, ir_version=self._ir_version)
        for name in node.output:
            if name and name not in self._types:
                raise ValueError(f"The type of {name}, made by {node.op_type}, cannot be inferred.")


def _concrete(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> TypeProto:
    tensor = value.type.tensor_type
    shape = []
    for dim in tensor.shape.dim:
        if not dim.HasField("dim_value") and dim.dim_param not in sizes:
            raise ValueError(f"The axis {dim.dim_param or '?'} of {value.name} has no size.")
        shape.append(dim.dim_value if dim.HasField("dim_value") else sizes[dim.dim_param])
    return helper.make_tensor_type_proto(tensor.elem_type or TensorProto.FLOAT, shape)
