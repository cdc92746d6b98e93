"""Time by layer: ONNX Runtime's profiler on the bundled engines, and what TensorRT's would tell on a stand-in."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.speed.layers import NONE, Layer, block_of, blocks_of, by_kind, summed
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.tensorrt import make_profiler

ROOT = Path(__file__).parents[1]
with_onnx = pytest.mark.skipif(not find_spec("onnx"), reason="it tells the blocks of nodes")
UNET = [
    "conv_in",
    "time_embedding",
    "add_embedding",
    "down_blocks.0",
    "down_blocks.1",
    "down_blocks.2",
    "down_blocks.3",
]
UNET += ["mid_block", "up_blocks.0", "up_blocks.1", "up_blocks.2", "up_blocks.3", "conv_norm_out", "conv_out"]


@with_onnx
def test_every_block_of_every_graph_has_its_time_and_shares_are_the_whole(tmp_path):
    command = [sys.executable, "bench/layers.py", "--size", "64x64", "--frames", "2", "--window", "2"]
    command += ["--engines", str(BUNDLED), "--results", str(tmp_path)]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    graphs = json.loads((tmp_path / "layers.json").read_text())["graphs"]
    blocks = graphs["denoiser"]["blocks"]
    assert set(UNET) - set(blocks) <= {"conv_norm_out"}  # which may be joined with what follows
    assert {f"up_blocks.{number}" for number in range(4)} <= set(graphs["vae_decoder"]["blocks"])
    assert {"down_blocks.0", "mid_block"} <= set(graphs["vae_encoder"]["blocks"])
    assert "layers.0" in graphs["clip_encoder"]["blocks"]
    for found in graphs.values():
        in_blocks = sum(row["ms"] for row in found["blocks"].values())
        assert in_blocks == pytest.approx(sum(found["kinds"].values()))
        assert in_blocks > 0
        # Hardly anything is of no block: in number, as a busy machine may stop within any of them.
        layers = [row["layers"] for row in found["blocks"].values()]
        assert found["blocks"].get(NONE, {"layers": 0})["layers"] <= 0.1 * sum(layers)
    assert "denoiser, 2 frames" in done.stdout
    assert "by operation: " in done.stdout


@with_onnx
def test_a_node_is_of_the_block_whose_weights_it_has_or_that_its_last_input_is_from():
    blocks = blocks_of(BUNDLED / "denoiser.onnx")
    assert set(UNET) <= set(blocks.values())
    assert list(dict.fromkeys(blocks.values())).index("down_blocks.0") < list(blocks.values()).index("up_blocks.3")


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("node_conv2d_1", "down_blocks.0"),
        ("node_conv2d_1_nchwc", "down_blocks.0"),
        ("{ForeignNode[node_add_7...node_conv2d_1]}", "mid_block"),
        ("__myl_Fc_0x1 [ONNX Layer: node_add_7]", "mid_block"),
        ("Reformatting CopyNode for Input Tensor 0", None),
    ],
)
def test_a_layer_of_a_library_is_of_the_block_of_the_first_node_that_its_name_tells(layer, block):
    assert block_of(layer, {"node_conv2d_1": "down_blocks.0", "node_add_7": "mid_block"}) == block


class Module:
    """What is used of TensorRT; no machine without a GPU can make the contexts that call a profiler."""

    class IProfiler:
        def report_layer_time(self, layer_name: str, ms: float) -> None:
            raise NotImplementedError


def test_what_tensorrts_profiler_tells_is_summed_by_block():
    layers: list[Layer] = []
    profiler: Any = make_profiler(Module, lambda name, ms: layers.append(Layer(name, "", ms)))
    for name, ms in (("copy", 0.125), ("node_a", 2.0), ("node_b", 0.5), ("node_a_copy", 1.0), ("signal", 0.25)):
        profiler.report_layer_time(name, ms)
    assert summed(layers, {"node_a": "conv_in", "node_b": "mid_block", "node_c": "conv_out"}) == {
        NONE: {"ms": 0.125, "layers": 1},
        "conv_in": {"ms": 3.25, "layers": 3},
        "mid_block": {"ms": 0.5, "layers": 1},
    }
    assert by_kind(layers) == {}
