"""Weights that are float16 are stored as float16, and the graph computes what it did."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from dc_export.rewrite.half_weights import store_half_weights


def product(weight: np.ndarray) -> onnx.ModelProto:
    """A graph that gives x times `weight`, twice over."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["once"]),
        helper.make_node("MatMul", ["once", "weight"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(weight)]) for name in "xy")
    graph = helper.make_graph(nodes, "graph", [x], [y], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def stored(model: onnx.ModelProto) -> ir.Model:
    rewritten = ir.from_proto(model)
    store_half_weights(rewritten)
    return rewritten


def test_it_computes_the_same_from_half_the_bytes():
    rng = np.random.default_rng(0)
    model = product(rng.normal(size=(32, 32)).astype(np.float16).astype(np.float32))
    rewritten = ir.to_proto(stored(model))
    (weight,) = rewritten.graph.initializer
    assert weight.data_type == TensorProto.FLOAT16
    assert rewritten.ByteSize() < 0.7 * model.ByteSize()
    x = rng.normal(size=(3, 32)).astype(np.float32)
    np.testing.assert_array_equal(run(rewritten, x), run(model, x))


@pytest.mark.parametrize(
    "special",
    [1 + 2**-12, 1e5, 1e-9, 65519.996],
    ids=["between two halves", "too large", "too small", "rounds to the largest"],
)
def test_a_weight_that_would_change_stays_as_it_is(special):
    weight = np.ones((32, 32), np.float32)
    weight[3, 5] = special
    (kept,) = stored(product(weight)).graph.initializers.values()
    np.testing.assert_array_equal(kept.const_value.numpy(), weight)


def test_a_small_weight_is_not_worth_a_node():
    rewritten = stored(product(np.ones((8, 8), np.float32)))
    assert [node.op_type for node in rewritten.graph] == ["MatMul", "MatMul"]
