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

import onnx
from onnx import NodeProto

from dc_export.shapes import Shapes

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
    shapes = Shapes(model, sizes, folder)
    return [cost for node in model.graph.node if (cost := _cost(node, shapes))]


def _cost(node: NodeProto, shapes: Shapes) -> Cost | None:
    if node.op_type in UNCOUNTED or node.domain not in ("", "ai.onnx"):
        raise ValueError(f"{node.op_type} nodes are not counted; teach them to {Path(__file__).name}.")
    shapes.follow(node)
    flops = _flops(node, shapes)
    if flops is None:
        return None
    return Cost(flops, sum(shapes.bytes(name) for name in (*node.input, *node.output) if name))


def _flops(node: NodeProto, shapes: Shapes) -> int | None:
    if node.op_type == "MatMul":
        return 2 * shapes.size(node.output[0]) * shapes.shape(node.input[0])[-1]
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return 2 * shapes.size(node.output[0]) * shapes.shape(node.input[0])[0 if transposed else 1]
    if node.op_type == "Conv":
        return 2 * shapes.size(node.output[0]) * math.prod(shapes.shape(node.input[1])[1:])
    if node.op_type == "Attention":
        return _attention(node, shapes)
    return None


def _attention(node: NodeProto, shapes: Shapes) -> int:
    """Both products, in full even where a mask is causal; [batch, heads, length, width] or [batch, length, all]."""
    query, key = shapes.shape(node.input[0]), shapes.shape(node.input[1])
    if len(node.input) > 4:
        raise ValueError("Attention with a cache of past keys is not counted.")
    return 2 * key[-2] * (math.prod(query) + shapes.size(node.output[0]))
