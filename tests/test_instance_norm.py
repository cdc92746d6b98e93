"""Group normalization written as instance normalization is the same."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from dc_export.rewrite.instance_norm import use_instance_normalization


def group_norm(shape: tuple[int, ...], groups: int, rng: np.random.Generator) -> onnx.ModelProto:
    """A graph that scales x, normalizes it in groups, and gives that."""
    constants = [
        numpy_helper.from_array(rng.normal(1, 0.3, shape[1]).astype(np.float32), "weight"),
        numpy_helper.from_array(rng.normal(0, 0.3, shape[1]).astype(np.float32), "bias"),
        numpy_helper.from_array(np.float32(3), "three"),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "three"], ["scaled"]),
        helper.make_node("GroupNormalization", ["scaled", "weight", "bias"], ["y"], num_groups=groups, epsilon=1e-2),
    ]
    axes = ["n", shape[1], *(f"d{axis}" for axis in range(2, len(shape)))]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in "xy")
    graph = helper.make_graph(nodes, "graph", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (1, 8, 4, 5, 3), (2, 8, 6)])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_it_computes_what_group_normalization_does(shape, groups):
    rng = np.random.default_rng(groups)
    model = group_norm(shape, groups, rng)
    rewritten = ir.from_proto(model)
    use_instance_normalization(rewritten)
    assert "GroupNormalization" not in {node.op_type for node in rewritten.graph}
    rewritten.graph.sort()
    x = rng.normal(2, 3, shape).astype(np.float32)
    expected = run(model, x)
    np.testing.assert_allclose(run(ir.to_proto(rewritten), x), expected, atol=1e-5)
    # The scale and the groups matter, so that the comparison can fail.
    assert np.abs(expected).max() > 1
    other = run(group_norm(shape, 4, np.random.default_rng(groups)), x)
    assert np.abs(other - expected).max() > 1e-2
