"""Whether the temporal convolutions may be written as 2-D ones: (3,1,1) over [T,h,w] as (3,1) over [T,h*w].

    python -m bench.parity.temporal_convolution

Compared are bits: of one convolution in PyTorch and in ONNX Runtime, in float32 and float16, and of the bundled
decoder in ONNX Runtime. Then TensorRT-RTX, where it is installed, builds both forms of two convolutions of the real
size in half precision, and of the bundled decoder: it needs no GPU, so that it tells sizes and not times. Prints
figures and changes nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dc_rt.engine.discovery import BUNDLED

KERNEL = (3, 1, 1)
SMALL = (1, 64, 16, 24, 40)  # batch, channels, T, h, w
REAL = (1, 320, 110, 72, 128)


def in_pytorch(dtype: torch.dtype) -> float:
    """The largest difference of the two forms; 0 where they are the same bit for bit."""
    generator = torch.Generator().manual_seed(0)
    channels = SMALL[1]
    x = torch.randn(SMALL, generator=generator).to(dtype)
    weight = (torch.randn(channels, channels, *KERNEL, generator=generator) / (3 * channels) ** 0.5).to(dtype)
    bias = torch.randn(channels, generator=generator).to(dtype)
    volume = torch.nn.functional.conv3d(x, weight, bias, padding=(1, 0, 0))
    plane = torch.nn.functional.conv2d(x.flatten(3), weight.squeeze(-1), bias, padding=(1, 0))
    return float((plane.view_as(volume) - volume).abs().max())


def two_convolutions(shape: tuple[int, ...], dtype: type[np.generic]) -> onnx.ModelProto:
    """x -> (3,1,1) -> SiLU -> (3,1,1) -> y, with random weights."""
    rng, channels = np.random.default_rng(0), shape[1]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = []
    for name in ("first", "second"):
        weight = rng.standard_normal((channels, channels, *KERNEL)) / (3 * channels) ** 0.5
        constants += [
            numpy_helper.from_array(weight.astype(dtype), f"{name}.weight"),
            numpy_helper.from_array(rng.standard_normal(channels).astype(dtype), f"{name}.bias"),
        ]
    form = {"kernel_shape": KERNEL, "pads": [1, 0, 0, 1, 0, 0]}
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["a"], "first", **form),
        helper.make_node("Sigmoid", ["a"], ["gate"]),
        helper.make_node("Mul", ["a", "gate"], ["b"]),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["y"], "second", **form),
    ]
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    graph = helper.make_graph(nodes, "temporal", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def in_two_dimensions(model: onnx.ModelProto) -> int:
    """Rewrite every (3,1,1) convolution of a model between two reshapes; how many there were."""
    graph, nodes, count = model.graph, [], 0
    weights = {each.name: each for each in graph.initializer}
    for node in graph.node:  # the bundled graphs have their weights in half precision, and cast them
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or tuple(weight.dims[2:]) != KERNEL:
            nodes.append(node)
            continue
        del weight.dims[-1]
        name, (x, kernel, *bias), (y,) = f"temporal_{count}", node.input, node.output
        nodes += [
            helper.make_node("Reshape", [x, "to_plane"], [f"{name}.plane"]),
            helper.make_node(
                "Conv", [f"{name}.plane", kernel, *bias], [f"{name}.made"], name, kernel_shape=[3, 1], pads=[1, 0, 1, 0]
            ),
            helper.make_node("Shape", [f"{name}.made"], [f"{name}.channels"], start=0, end=3),
            helper.make_node("Shape", [x], [f"{name}.sides"], start=3, end=5),
            helper.make_node("Concat", [f"{name}.channels", f"{name}.sides"], [f"{name}.shape"], axis=0),
            helper.make_node("Reshape", [f"{name}.made", f"{name}.shape"], [y]),
        ]
        count += 1
    graph.initializer.append(helper.make_tensor("to_plane", TensorProto.INT64, [4], [0, 0, 0, -1]))
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def pair(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto, int]:
    """A model as it is, the same in two dimensions, and how many convolutions were rewritten."""
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    del rewritten.graph.value_info[:]
    return model, rewritten, in_two_dimensions(rewritten)


def in_onnx_runtime(models: tuple[onnx.ModelProto, onnx.ModelProto], inputs: dict[str, NDArray[np.generic]]) -> float:
    """The largest difference of what the two models give."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    volume, plane = (
        onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        .run(None, inputs)[0]
        .astype(np.float32)
        for model in models
    )
    return float(np.abs(volume - plane).max())


def in_tensorrt(model: onnx.ModelProto, shapes: dict[str, tuple[int, int, int]]) -> str:
    """What TensorRT-RTX's builder says: layers, size of the engine, memory, seconds."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    trt.OnnxParser(network, logger).parse(model.SerializeToString())
    with tempfile.TemporaryDirectory() as folder:
        graph, engine = Path(folder, "graph.onnx"), Path(folder, "engine")
        onnx.save(model, graph)
        job = {
            "module": "tensorrt_rtx",
            "graph": str(graph),
            "engine": str(engine),
            "shapes": [shapes],
            "workspace": None,
            "weight_streaming": False,
            "portable": False,
            "timing_cache": None,
            "fixed_memory": True,
        }
        command = [sys.executable, "-m", "dc_export.build", json.dumps(job)]
        began = time.perf_counter()
        # Its input stays open: at its end the process takes it that nobody waits any more.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            said = process.stdout.read().splitlines()
            status = process.wait()
        seconds = time.perf_counter() - began
        if status:
            return f"not built ({said[-1] if said else f'status {status}'})"
        memory = [line.split("] ")[-1] for line in said if "Total Activation" in line]
        size = engine.stat().st_size / 1e6
    return f"{network.num_layers} layers parsed, engine {size:.2f} MB, {'; '.join(memory)}, built in {seconds:.1f} s"


def main() -> None:
    """Compare and print."""
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float16):
        print(f"PyTorch, one convolution, {dtype}: largest difference {in_pytorch(dtype):.1e}", flush=True)
    for kind in (np.float32, np.float16):
        *models, _ = pair(two_convolutions(SMALL, kind))
        x = np.random.default_rng(1).standard_normal(SMALL).astype(kind)
        print(f"ONNX Runtime, two, {kind.__name__}: largest difference {in_onnx_runtime((*models,), {'x': x}):.1e}")
    decoder, plane, count = pair(onnx.load(BUNDLED / "vae_decoder.onnx"))
    latents = np.random.default_rng(2).standard_normal((4, 4, 16, 24), np.float32)
    difference = in_onnx_runtime((decoder, plane), {"latents": latents})
    print(f"ONNX Runtime, bundled decoder, {count} of them: largest difference {difference:.1e}", flush=True)
    if not find_spec("tensorrt_rtx"):
        print("TensorRT-RTX is not installed: nothing was built.")
        return
    frames = {"n": (8, 8, 8), "h": (24, 24, 24), "w": (40, 40, 40)}
    volume, flat, _ = pair(two_convolutions(REAL, np.float16))
    for title, model in {"volume": volume, "plane": flat}.items():
        print(f"TensorRT-RTX, two of the real size, {title}: {in_tensorrt(model, {})}", flush=True)
    for title, model in {"volume": decoder, "plane": plane}.items():
        print(f"TensorRT-RTX, bundled decoder, {title}: {in_tensorrt(model, frames)}", flush=True)


if __name__ == "__main__":
    main()
