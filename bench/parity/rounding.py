"""Half precision as a GPU has it, on the CPU: ONNX graphs whose every value is rounded to float16.

ONNX Runtime has few float16 kernels for the CPU. It computes the other nodes in float32, and where one follows another
it rounds nothing in between: what would overflow on a GPU passes unseen. Here every node of a graph is followed by two
that take float16 as it is (one alone would be run in float32 too), so that all of its results are rounded, and the
largest ones are noted. Sums within a node stay in float32, as in TensorRT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from dc_rt.engine import GRAPHS, Array, Engine, EngineSet, Manifest

LARGEST = "largest_float16"
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass
class Rounded:
    """An engine set that rounds, and for each of its graphs the largest float16 value that there was in it so far."""

    engines: EngineSet
    largest: dict[str, float] = field(default_factory=dict)


def load_rounded(folder: Path) -> Rounded:
    """Open the graphs of an engine set on the CPU, rounding as a GPU does. For small models: all is in memory."""
    manifest = Manifest.read(folder)
    manifest.check_contents(folder)
    largest = dict.fromkeys(GRAPHS, 0.0)

    def open_engine(graph: str) -> Engine:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # The nodes that round do nothing else, and would be optimised away.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = round_every_value(onnx.load(folder / manifest.file(graph)))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(**inputs: Array) -> dict[str, Array]:
            outputs = dict(zip(names, session.run(None, inputs), strict=True))
            if LARGEST in outputs:
                # Of what is not a number, max would tell nothing.
                largest[graph] = float(np.maximum(largest[graph], np.nan_to_num(outputs.pop(LARGEST), nan=np.inf)))
            return outputs

        return run

    engines = EngineSet(manifest, "onnx", "the CPU, rounding every value", open_engine, one_resident=False)
    return Rounded(engines, largest)


def round_every_value(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with two identities behind every node, and the largest magnitude in float16 as one more output.

    Nodes within loops are left as they are.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    half = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes: list[onnx.NodeProto] = []
    magnitudes: list[str] = []
    for node in model.graph.node:
        nodes.append(node)
        rounded = [name for name in node.output if name in half]
        for name in rounded:
            raw = f"{name}_as_computed"
            node.output[list(node.output).index(name)] = raw
            nodes.append(helper.make_node("Identity", [raw], [f"{name}_rounded"]))
            nodes.append(helper.make_node("Identity", [f"{name}_rounded"], [name]))
            nodes.append(helper.make_node("Abs", [name], [f"{name}_abs"]))
            nodes.append(helper.make_node("ReduceMax", [f"{name}_abs"], [f"{name}_max"], keepdims=0))
            nodes.append(helper.make_node("Unsqueeze", [f"{name}_max", "largest_axis"], [f"{name}_magnitude"]))
            magnitudes.append(f"{name}_magnitude")
    if magnitudes:
        nodes.append(helper.make_node("Concat", magnitudes, ["all_magnitudes"], axis=0))
        nodes.append(helper.make_node("Cast", ["all_magnitudes"], ["all_magnitudes_32"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceMax", ["all_magnitudes_32"], [LARGEST], keepdims=0))
        model.graph.initializer.append(helper.make_tensor("largest_axis", TensorProto.INT64, [1], [0]))
        model.graph.output.append(helper.make_tensor_value_info(LARGEST, TensorProto.FLOAT, []))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return model
