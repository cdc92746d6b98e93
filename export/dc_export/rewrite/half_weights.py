"""Weights in the precision that they were published in.

The original and nano publish float16 weights. A graph that computes in float32 holds each of them as four bytes, two of
which say nothing: stored as float16 behind a `Cast` it computes the same numbers, and ONNX Runtime folds the cast away
as it loads the graph.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

# A smaller one is not worth a node.
LEAST_BYTES = 1024


def store_half_weights(model: ir.Model) -> None:
    """Store as float16 what is float32 and loses nothing by it; in place."""
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < LEAST_BYTES:
            continue
        exact = tensor.numpy()
        with np.errstate(over="ignore"):
            half = exact.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), exact):
            continue
        name = f"{value.name}_half"
        stored = ir.Value(name=name, const_value=ir.tensor(half, name=name))
        stored.shape, stored.dtype = value.shape, ir.DataType.FLOAT16
        cast = ir.Node("", "Cast", [stored], [ir.AttrInt64("to", ir.DataType.FLOAT)])
        cast.outputs[0].shape, cast.outputs[0].dtype = value.shape, ir.DataType.FLOAT
        value.replace_all_uses_with(cast.outputs[0])
        model.graph.initializers.pop(value.name)
        model.graph.register_initializer(stored)
        model.graph.insert_before(model.graph[0], cast)
