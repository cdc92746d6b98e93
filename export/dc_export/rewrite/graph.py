"""An exported graph, read and changed: what all rules have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import count

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

PIECES = 8


class Unexpected(ValueError):
    """A graph is not built as a rule takes it to be."""


class Writer:
    """Writes nodes into a graph, before one of its nodes."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self.graph = graph
        self.before = before

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes)
        self.graph.insert_before(self.before, node)
        return node.outputs[0]

    def copy(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Node:
        """The same operation on other inputs."""
        copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
        self.graph.insert_before(self.before, copy)
        return copy

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        """An initializer, small or large; equal integers are shared."""
        return _constant(self.graph, array)


def _constant(graph: ir.Graph, array: NDArray[np.generic]) -> ir.Value:
    if array.dtype == np.int64 and array.ndim <= 1:
        name = f"{'scalar' if array.ndim == 0 else 'list'}_{'_'.join(str(number) for number in array.reshape(-1))}"
        if name in graph.initializers:
            return graph.initializers[name]
    else:
        name = next(name for i in count(len(graph.initializers)) if (name := f"part_{i}") not in graph.initializers)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def pixel_axis(value: ir.Value) -> int | None:
    """The axis that can be cut in more than one piece; None where there is none."""
    axes = [axis for axis, size in enumerate(shape_of(value)) if not isinstance(size, int) and divisor(size) > 1]
    return axes[0] if axes else None


def pieces_of(value: ir.Value, axis: int, most: int = PIECES) -> int:
    return math.gcd(most, divisor(shape_of(value)[axis]))


def divisor(size: int | str) -> int:
    """A number that divides a size whatever the variables in it: 64 of "64*h*w", 1 of "T"."""
    if isinstance(size, int):
        return size
    factor = re.fullmatch(r"(\d+)(?:\*\w+)+", size)
    return int(factor[1]) if factor else 1


def shape_of(value: ir.Value) -> list[int | str]:
    if value.shape is None:
        raise Unexpected(f"the shape of {value.name} is not known")
    return [size if isinstance(size, int) else str(size.value) for size in value.shape]


def nodes_of(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op_type]


def nodes_between(sources: Sequence[ir.Value], sink: ir.Value) -> list[ir.Node]:
    """The nodes on the ways from `sources` to `sink`, each after those that it needs.

    A `Shape` starts no way: what follows from it is about sizes.
    """
    reaches: dict[ir.Value, bool] = dict.fromkeys(sources, True)
    ordered: list[ir.Node] = []

    def visit(value: ir.Value) -> bool:
        if value not in reaches:
            node = value.producer()
            found = False
            if node is not None and node.op_type != "Shape":
                for x in node.inputs:
                    found |= x is not None and visit(x)
            for output in node.outputs if node is not None else (value,):
                reaches[output] = found
            if found and node is not None:
                ordered.append(node)
        return reaches[value]

    visit(sink)
    return ordered


def before(node: ir.Node, *op_types: str) -> ir.Node:
    """The last of nodes of these kinds, each of which makes the first input of the one named before it."""
    for op_type in op_types:
        after, node = node, producer(node.inputs[0])
        if node.op_type != op_type:
            raise Unexpected(f"before {after.name} there is {node.op_type}, not {op_type}")
    return node


def upstream(node: ir.Node, op_type: str) -> ir.Node:
    """The nearest node of that kind before `node`."""
    level = [node]
    while level:
        for found in level:
            if found.op_type == op_type:
                return found
        level = [producer for found in level for x in found.inputs if x is not None and (producer := x.producer())]
    raise Unexpected(f"there is no {op_type} before {node.name}")


def substitute(node: ir.Node, result: ir.Value) -> None:
    """Let the users of a node's only output use `result`."""
    (output,) = node.outputs
    result.shape, result.type = output.shape, output.type
    output.replace_all_uses_with(result, replace_graph_outputs=True)


def remove(model: ir.Model, *nodes: ir.Node) -> None:
    """Remove nodes, users first, that nothing else uses, and initializers that they alone used."""
    for node in nodes:
        inputs = [value for value in node.inputs if value is not None]
        model.graph.remove(node, safe=True)
        for value in inputs:
            if value.is_initializer() and not value.uses():
                model.graph.initializers.pop(str(value.name), None)


def producer(value: ir.Value | None) -> ir.Node:
    node = present(value).producer()
    if node is None:
        raise Unexpected(f"nothing in the graph makes {present(value).name}")
    return node


def present(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise Unexpected("an input is left out")
    return value


def array_of(value: ir.Value) -> NDArray[np.generic]:
    if value.const_value is None:
        raise Unexpected(f"{value.name} is no constant")
    array: NDArray[np.generic] = value.const_value.numpy()
    return array


def pixel_divisor(value: ir.Value) -> int:
    return math.prod(divisor(size) for size in shape_of(value) if not isinstance(size, int))


def user_of(model: ir.Model, initializer: str) -> ir.Node:
    (node,) = model.graph.initializers[initializer].consumers()
    return node
