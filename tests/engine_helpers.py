"""Engine sets whose four graphs have the real names and shapes and a few layers each, so that all build in seconds.

Run as a script, it builds the TensorRT-RTX engines of such a set: the builder is best kept out of the tests' process,
where it would also take TensorRT's one log for itself.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dc_rt.engine.compatibility import this_platform
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import GRAPHS, Build, BuiltEngine, File, Manifest, Profile, Range

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
EMBEDDING_DIM = 64
FRAMES, SIDES = (1, 8, 12), (64, 128, 256)
PROFILE = Profile("toy", Range(*SIDES), Range(*SIDES), Range(*FRAMES))
TARGETS = ("8.0", "8.6", "8.9", "12.0+")


def make_onnx_set(folder: Path) -> Path:
    """A set of ONNX graphs that a video can be run through; its depth means nothing."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def weights(name, *shape, spread):
        return numpy_helper.from_array((spread * rng.standard_normal(shape)).astype(np.float32), name)

    def constant(name, *values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)

    _save(
        folder / "clip_encoder.onnx",
        {"frames": (UINT8, "n H W 3"), "resize_rows": (FLOAT, "224 H"), "resize_cols": (FLOAT, "224 W")},
        {"embeddings": (FLOAT, f"n {EMBEDDING_DIM}")},
        [
            node("Cast", "frames", "pixels", to=FLOAT),
            node("ReduceMean", "pixels last", "grey", keepdims=0),
            node("MatMul", "resize_rows grey", "rows"),
            node("Transpose", "resize_cols", "cols", perm=[1, 0]),
            node("MatMul", "rows cols", "small"),
            node("ReduceMean", "small first", "column", keepdims=0),
            node("MatMul", "column w", "embeddings"),
        ],
        [constant("last", 3), constant("first", 1), weights("w", 224, EMBEDDING_DIM, spread=1e-3)],
    )
    _save(
        folder / "vae_encoder.onnx",
        {"frames": (UINT8, "n H W 3"), "noise": (FLOAT, "n 3 H W")},
        {"image_latents": (FLOAT, "n 4 h w")},
        [
            node("Cast", "frames", "pixels", to=FLOAT),
            node("Transpose", "pixels", "planes", perm=[0, 3, 1, 2]),
            node("Add", "planes noise", "noisy"),
            node("Conv", "noisy kernel", "image_latents", kernel_shape=[8, 8], strides=[8, 8]),
        ],
        [weights("kernel", 4, 3, 8, 8, spread=1e-3)],
    )
    _save(
        folder / "denoiser.onnx",
        {
            "noisy": (FLOAT, "1 T 4 h w"),
            "sigma": (FLOAT, ""),
            "image_latents": (FLOAT, "1 T 4 h w"),
            "embeddings": (FLOAT, f"1 T {EMBEDDING_DIM}"),
        },
        {"denoised": (FLOAT, "1 T 4 h w")},
        [
            node("Div", "noisy sigma", "ratio"),
            node("Tanh", "ratio", "scaled"),
            node("Concat", "scaled image_latents", "both", axis=2),
            node("Squeeze", "both zero", "frames"),
            node("Conv", "frames kernel", "mixed", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("MatMul", "embeddings w", "context"),
            node("Reshape", "context to", "bias"),
            node("Add", "mixed bias", "sum"),
            node("Unsqueeze", "sum zero", "denoised"),
        ],
        [
            constant("zero", 0),
            constant("to", -1, 4, 1, 1),
            weights("kernel", 4, 8, 3, 3, spread=0.1),
            weights("w", EMBEDDING_DIM, 4, spread=0.1),
        ],
    )
    _save(
        folder / "vae_decoder.onnx",
        {"latents": (FLOAT, "n 4 h w")},
        {"depth": (FLOAT, "n H W")},
        [
            node("ConvTranspose", "latents kernel", "planes", kernel_shape=[8, 8], strides=[8, 8]),
            node("Sigmoid", "planes", "squashed"),
            node("Squeeze", "squashed one", "depth"),
        ],
        [constant("one", 1), weights("kernel", 4, 1, 8, 8, spread=0.5)],
    )
    bundled = Manifest.read(BUNDLED)
    dataclasses.replace(
        bundled,
        model=dataclasses.replace(bundled.model, name="toy", embedding_dim=EMBEDDING_DIM),
        precision="fp32",
        profile=PROFILE,
        graphs={graph: (File.of(folder / f"{graph}.onnx"),) for graph in GRAPHS},
    ).write(folder)
    return folder


def add_engines(folder: Path, *, weight_streaming: bool = False) -> Path:
    """Build TensorRT-RTX engines for the set in `folder`, and record them."""
    command = [sys.executable, __file__, str(folder), "weight_streaming" if weight_streaming else ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    engines = {
        graph: BuiltEngine(
            File.of(folder / f"{graph}.rtx.engine"), key="", seconds=0, weights_bytes=0, activation_bytes=0
        )
        for graph in GRAPHS
    }
    flags = ("weight_streaming",) if weight_streaming else ()
    build = Build(done.stdout.strip(), this_platform(), TARGETS, flags, PROFILE, engines)
    dataclasses.replace(Manifest.read(folder), builds={"rtx": build}).write(folder)
    return folder


def _save(path, inputs, outputs, nodes, initializers):
    graph = helper.make_graph(
        nodes,
        path.stem,
        [_value(name, *spec) for name, spec in inputs.items()],
        [_value(name, *spec) for name, spec in outputs.items()],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _value(name, dtype, dims):
    return helper.make_tensor_value_info(name, dtype, [int(dim) if dim.isdigit() else dim for dim in dims.split()])


def _build(folder: Path, weight_streaming: bool) -> None:
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    for graph in GRAPHS:
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        assert parser.parse_from_file(str(folder / f"{graph}.onnx")), parser.get_error(0).desc()
        config = builder.create_builder_config()
        if weight_streaming:
            config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
        profile = builder.create_optimization_profile()
        for value in onnx.load(folder / f"{graph}.onnx").graph.input:
            dims = value.type.tensor_type.shape.dim
            ranges = [_RANGES.get(dim.dim_param, (dim.dim_value,) * 3) for dim in dims]
            profile.set_shape(
                value.name, *(tuple(choice) for choice in zip(*ranges, strict=True)) if ranges else ((),) * 3
            )
        config.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, config)
        assert engine is not None, graph
        (folder / f"{graph}.rtx.engine").write_bytes(bytes(engine))
    print(trt.__version__)


_EIGHTHS = tuple(side // 8 for side in SIDES)
_RANGES = {"n": FRAMES, "T": FRAMES, "H": SIDES, "W": SIDES, "h": _EIGHTHS, "w": _EIGHTHS}


if __name__ == "__main__":
    _build(Path(sys.argv[1]), weight_streaming=bool(sys.argv[2]))
