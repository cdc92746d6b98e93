"""The graphs that become engines, in half precision: their depth is the float32 reference's, whatever the input."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bench.clips import clip_frames
from bench.parity.rounding import FLOAT16_MAX, LARGEST, load_rounded, round_every_value
from dc_export.extremes import extremes
from dc_rt import DepthCrafter, Noise
from dc_rt.engine import GRAPHS, EngineSet, Profile, Range
from depthcrafter import load_pipeline

DEMO = Path(__file__).parents[1] / "examples" / "demo.mp4"
HEIGHT, WIDTH = 128, 192
# The graphs run any size; that of the profile would take minutes.
SMALL = Profile("small", Range(64, HEIGHT, 256), Range(64, WIDTH, 256), Range(1, 16, 110))


@pytest.fixture(scope="module")
def rounded(half):
    rounded = load_rounded(half)
    engines = rounded.engines
    manifest = dataclasses.replace(engines.manifest, profile=SMALL)
    rounded.engines = EngineSet(manifest, "onnx", engines.device, engines._engines.__getitem__, one_resident=False)
    return rounded


@pytest.fixture(scope="module")
def nano():
    """The reference in float32, with the bundled weights."""
    return load_pipeline("nano", "nano")


def depth_of(model, frames, **options):
    return np.stack(list(model(frames, noise=Noise(11), **options)))


def test_every_value_is_rounded_and_an_overflow_is_seen():
    """300 * x * 300 / 300 / 300: what is between overflows for x = 1, which ONNX Runtime alone does not notice."""
    half = TensorProto.FLOAT16
    names = ["x16", "a", "b", "c", "d"]
    factors = ["large", "large", "small", "small"]
    nodes = [helper.make_node("Cast", ["x"], ["x16"], to=half)]
    nodes += [helper.make_node("Mul", [names[i], factors[i]], [names[i + 1]]) for i in range(4)]
    nodes += [helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT)]
    value, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    constants = [helper.make_tensor("large", half, [], [300.0]), helper.make_tensor("small", half, [], [1 / 300])]
    graph = helper.make_graph(nodes, "graph", [value], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(round_every_value(model).SerializeToString(), options)
    y, largest = session.run(["y", LARGEST], {"x": np.ones(1, np.float32)})
    assert np.isinf(y)
    assert np.isinf(largest)
    y, largest = session.run(["y", LARGEST], {"x": np.full(1, 0.5, np.float32)})
    assert y == pytest.approx(0.5, rel=2e-3)
    assert largest == np.float16(45000)


def test_the_depth_of_a_clip_is_the_references(rounded, nano):
    frames = np.stack(list(clip_frames(DEMO, HEIGHT, WIDTH, 16)))
    options = {"steps": 5, "window_size": 12, "overlap": 3}
    expected = depth_of(nano, frames, **options)
    actual = depth_of(DepthCrafter(rounded.engines), frames, **options)
    assert expected.std() > 0.01
    assert 0 < np.abs(actual - expected).mean() <= 2e-3


@pytest.mark.parametrize("name", extremes(64, 64))
def test_nothing_overflows_at_the_extremes(rounded, nano, name):
    rounded.largest.update(dict.fromkeys(GRAPHS, 0.0))
    frames = extremes(HEIGHT, WIDTH)[name]
    options = {"steps": 1, "guidance_scale": 1.2}
    expected = depth_of(nano, frames, **options)
    actual = depth_of(DepthCrafter(rounded.engines), frames, **options)
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).mean() <= 1e-2
    assert max(rounded.largest.values()) < FLOAT16_MAX
    for graph in ("clip_encoder", "denoiser", "vae_decoder"):
        assert rounded.largest[graph] > 1, "nothing was looked at"
