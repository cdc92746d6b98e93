"""Group normalization for ONNX Runtime, which has a kernel for instance normalization alone.

It runs `GroupNormalization` as the dozen nodes that the standard defines it by, casts among them. A group is an
instance once the groups are laid out as channels, and where there are as many groups as channels it is one as it is.
Measured on one thread of a CPU, the normalization alone is 1.7 to 2.7 times as fast, from [16,64,12,20] to
[2,128,192,320] in 32 groups; nano's VAE decoder 1.24 times, its VAE encoder 1.22 times, on eight frames of 320x192.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dc_export.rewrite.graph import array_of, nodes_of, present, shape_of


def use_instance_normalization(model: ir.Model) -> int:
    """Replace every `GroupNormalization` of a graph, as exported with its shapes, by what it is; in place."""
    nodes = nodes_of(model, "GroupNormalization")
    for number, node in enumerate(nodes):
        x, weight, bias = (present(value) for value in node.inputs)
        groups, scales = node.attributes["num_groups"].as_int(), array_of(weight)
        channels = len(scales)
        epsilon = ir.AttrFloat32("epsilon", node.attributes["epsilon"].as_float())
        if groups == channels:
            added = [ir.Node("", "InstanceNormalization", [x, weight, bias], [epsilon])]
        else:
            constants = {
                "groups": np.array([0, groups, -1]),
                "ones": np.ones(groups, scales.dtype),
                "zeros": np.zeros(groups, scales.dtype),
                "per_channel": np.array([channels] + [1] * (len(shape_of(x)) - 2)),
            }
            values = {name: _initializer(model, f"norm_{number}_{name}", array) for name, array in constants.items()}
            cut = ir.Node("", "Reshape", [x, values["groups"]])
            inputs = [cut.outputs[0], values["ones"], values["zeros"]]
            normalized = ir.Node("", "InstanceNormalization", inputs, [epsilon])
            shape = ir.Node("", "Shape", [x])
            whole = ir.Node("", "Reshape", [normalized.outputs[0], shape.outputs[0]])
            scale = ir.Node("", "Reshape", [weight, values["per_channel"]])
            shift = ir.Node("", "Reshape", [bias, values["per_channel"]])
            scaled = ir.Node("", "Mul", [whole.outputs[0], scale.outputs[0]])
            added = [cut, normalized, shape, whole, scale, shift, scaled]
            added.append(ir.Node("", "Add", [scaled.outputs[0], shift.outputs[0]]))
        (output,), result = node.outputs, added[-1].outputs[0]
        result.shape, result.type = output.shape, output.type
        model.graph.insert_before(node, added)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    return len(nodes)


def _initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    model.graph.register_initializer(value)
    return value
