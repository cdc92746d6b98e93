"""Graphs rewritten for TensorRT: the same results as those exported, whatever the shape, in the precision they have."""

import re
from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dc_export import export_onnx
from dc_export.export import _save, _tidy, _trace
from dc_export.graphs import GRAPH_SPECS, ClipEncoder, Denoiser, VaeDecoder, VaeEncoder
from dc_export.profiles import load_profile
from dc_export.rewrite import LOW_MEMORY, ONNX, TENSORRT, rewrite_graph
from dc_export.rewrite.graph import PIECES
from dc_export.tensor_sizes import check_tensor_sizes, largest_shapes
from dc_rt import UserError
from dc_rt.engine import GRAPHS, Manifest, Profile, Range
from depthcrafter import load_unet, load_vae
from depthcrafter.checkpoint import load_feature_extractor
from depthcrafter.layout import CONFIGS, build_image_encoder, build_unet, build_vae

FORMS = ("sliced", "low_memory", "plain")
SMALL = Profile("small", Range(64, 128, 256), Range(64, 128, 256), Range(1, 8, 16))
HUGE = Profile("huge", Range(64, 576, 4096), Range(64, 1024, 4096), Range(1, 110, 256))


@pytest.fixture(scope="module")
def networks(checkpoint):
    """Three of the four in float32; the fourth has nothing that is sliced."""
    base, unet = checkpoint
    return {
        "denoiser": Denoiser(load_unet(unet)),
        "vae_encoder": VaeEncoder(load_vae(base, torch.float32)),
        "vae_decoder": VaeDecoder(load_vae(base, torch.float32)),
    }


@pytest.fixture(scope="module")
def traced(networks):
    """Their graphs as the exporter leaves them."""
    return {graph: _trace(network, GRAPH_SPECS[graph], 64, 4) for graph, network in networks.items()}


@pytest.fixture(scope="module")
def rewritten(networks, traced, tmp_path_factory):
    """Function (graph, form) -> file of the rewritten graph."""
    folder = tmp_path_factory.mktemp("rewritten")
    files = {}

    def write(graph, form):
        path = folder / f"{graph}-{form}.onnx"
        if path not in files:
            model = traced[graph].clone()
            rewrite_graph(model, networks[graph], graph, "tensorrt", form == "low_memory", form == "plain")
            _tidy(model, GRAPH_SPECS[graph])
            files[path] = _save(model, path)
        return path

    return write


def denoiser_inputs(frames, height, width):
    rng = np.random.default_rng(frames)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    return {
        "noisy": 3 * normal(1, frames, 4, height // 8, width // 8),
        "sigma": np.asarray(2.5, np.float32),
        "image_latents": normal(1, frames, 4, height // 8, width // 8),
        "embeddings": normal(1, frames, 64),
    }


def outputs(path, inputs):
    (output,) = onnxruntime.InferenceSession(path).run(None, inputs)
    return output


@pytest.mark.parametrize("form", FORMS)
def test_a_rewritten_denoiser_is_the_exported_one_at_every_number_of_frames(engines, rewritten, form):
    plain = onnxruntime.InferenceSession(engines / "denoiser.onnx")
    sliced = onnxruntime.InferenceSession(rewritten("denoiser", form))
    # Not smaller than 128: of a lowest level of one or two pixels, a group's norm is a sign, and rounding decides it.
    for frames, height, width in [(1, 128, 128), (3, 128, 192), (8, 192, 128), (17, 128, 128), (70, 128, 128)]:
        inputs = denoiser_inputs(frames, height, width)
        (expected,), (actual,) = plain.run(None, inputs), sliced.run(None, inputs)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-5, err_msg=f"{frames} x {height} x {width}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("graph", ["vae_encoder", "vae_decoder"])
def test_rewritten_vaes_are_the_exported_ones(engines, rewritten, graph, form):
    rng = np.random.default_rng(0)
    height, width = 128, 192
    plain = onnxruntime.InferenceSession(engines / f"{graph}.onnx")
    sliced = onnxruntime.InferenceSession(rewritten(graph, form))
    for frames in (1, 3, 8):
        inputs = {
            "vae_encoder": {
                "frames": rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8),
                "noise": rng.standard_normal((frames, 3, height, width), dtype=np.float32) / 50,
            },
            "vae_decoder": {"latents": rng.standard_normal((frames, 4, height // 8, width // 8), dtype=np.float32)},
        }[graph]
        (expected,), (actual,) = plain.run(None, inputs), sliced.run(None, inputs)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4, err_msg=f"{frames} frames")


def test_the_vae_has_no_layer_of_all_frames_in_a_graph_of_low_memory(rewritten):
    """The convolutions of its largest levels, of a chunk of 8 frames."""
    profile = Profile("exact", Range(128, 128, 128), Range(192, 192, 192), Range(13, 13, 13))

    def frames_convolved(graph, form):
        shapes = largest_shapes(rewritten(graph, form), profile)
        return [shape[0] for name, shape in shapes if name.lower().startswith("node_conv") and shape[2:] == (128, 192)]

    assert set(frames_convolved("vae_encoder", "sliced")) == {8}
    assert set(frames_convolved("vae_encoder", "low_memory")) == {1}
    assert 1 not in frames_convolved("vae_decoder", "sliced")
    assert frames_convolved("vae_decoder", "low_memory").count(1) >= 8 * 2  # of each block, in each slice


def test_a_slice_is_cut_only_when_the_one_before_is_done(rewritten):
    """Or TensorRT may cut all slices first and hold them together: the denoiser takes a third more."""
    nodes = onnx.load(rewritten("denoiser", "low_memory")).graph.node
    users = defaultdict(list)
    for node in nodes:
        for name in node.input:
            users[name].append(node)
    sizes = {node.input[1] for node in nodes if node.op_type == "Reshape"}
    joined = [
        node.input
        for node in nodes
        if node.op_type == "Concat" and len(node.input) == PIECES and node.output[0] not in sizes
    ]
    assert len(joined) > 10

    def cut_after(name, ways):
        """Whether there is a cut behind `name`, the index of which is computed by `ways`."""
        return not ways or any(user.op_type == ways[0] and cut_after(user.output[0], ways[1:]) for user in users[name])

    for parts in joined:
        for part in parts[:-1]:
            ways = ["Reshape", "Gather", "Cast", "Greater", "Cast", "Add", "Gather"]
            assert cut_after(part, ways)


def test_no_inner_tensor_of_a_feed_forward_has_all_pixels(rewritten):
    shapes = dict(largest_shapes(rewritten("denoiser", "sliced"), SMALL))
    inner = [shape for name, shape in shapes.items() if name.startswith("node_Gelu")]
    assert inner
    pixels = (SMALL.height.max // 8) * (SMALL.width.max // 8)
    assert all(pixels not in shape for shape in inner)


def test_a_tensor_beyond_the_limit_is_refused_by_the_name_of_its_node(rewritten, engines):
    for path in (engines / "denoiser.onnx", rewritten("denoiser", "sliced")):
        check_tensor_sizes(path, SMALL)
        with pytest.raises(UserError, match=r"node_\w+ of denoiser.*2\^31") as caught:
            check_tensor_sizes(path, HUGE)
        name = re.search(r"node_\w+", str(caught.value))[0]
        assert name in {node.name for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("graph", ["denoiser", "vae_encoder", "vae_decoder"])
def test_every_shape_of_film_is_within_the_limit(rewritten, graph, form):
    """Of a whole window too, though this model's attention has no fused kernel, and its scores are in slices."""
    check_tensor_sizes(rewritten(graph, form), load_profile("film"))


def test_sizes_are_those_that_running_has(rewritten):
    """The last node's shape, inferred through computed reshapes, at the size that is run."""
    exact = Profile("exact", Range(128, 128, 128), Range(192, 192, 192), Range(5, 5, 5))
    path = rewritten("denoiser", "sliced")
    _, shape = largest_shapes(path, exact)[-1]
    assert shape == outputs(path, denoiser_inputs(5, 128, 192)).shape


def test_half_precision_is_what_tensorrt_gets(half):
    manifest = Manifest.read(half)
    assert manifest.precision == "fp16"
    assert set(manifest.encoder_scaling) == {"stream", "hidden"}
    for graph in GRAPHS:
        types = {tensor.data_type for tensor in onnx.load(half / f"{graph}.onnx").graph.initializer}
        assert onnx.TensorProto.FLOAT16 in types


def test_a_target_that_cannot_be_is_one_sentence(checkpoint, tmp_path):
    base, unet = checkpoint
    cases: list[tuple[dict[str, Any], str]] = [
        ({"target": "coreml"}, "onnx, tensorrt"),
        ({"low_memory": True}, "--target tensorrt"),
        ({"plain": True}, "leave --plain out"),
        ({"target": "tensorrt", "plain": True, "low_memory": True}, "give one of them"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            export_onnx(base, unet, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("graph", "target", "op_type", "rule"),
    [
        ("denoiser", "tensorrt", "Attention", "decompose_attention must match 20 times in denoiser and found 19"),
        ("denoiser", "tensorrt", "Split", "split_feed_forwards must match 30 times in denoiser and found 29"),
        (
            "denoiser",
            "tensorrt",
            "LayerNormalization",
            r"slice_\w+ must match \d+ times in denoiser and found a part .* not LayerNormalization",
        ),
        ("vae_decoder", "onnx", "GroupNormalization", "use_instance_normalization must match 37 .* and found 36"),
        ("vae_encoder", "onnx", "GroupNormalization", "use_instance_normalization must match 14 .* and found 13"),
    ],
)
def test_a_graph_that_is_written_otherwise_ends_the_export_and_the_rule_is_named(
    networks, traced, graph, target, op_type, rule
):
    model = traced[graph].clone()
    # The last one, as another version of a library may write it.
    [node for node in model.graph if node.op_type == op_type][-1].op_type = "Another"
    with pytest.raises(UserError, match=rf"The rule {rule}.*diffusers [\d.]+ .*; install the versions") as caught:
        rewrite_graph(model, networks[graph], graph, target)
    assert "\n" not in str(caught.value)


def test_residuals_that_are_blended_otherwise_are_found_missing(networks, traced):
    """Not a * x + (1 - a) * (x + y), but the difference."""
    model = traced["denoiser"].clone()
    blend = next(
        node
        for node in model.graph
        if node.op_type == "Add" and all(x.producer() and x.producer().op_type == "Mul" for x in node.inputs)
    )
    blend.op_type = "Sub"
    with pytest.raises(UserError, match="blend_residuals must match 14 times in denoiser and found 13"):
        rewrite_graph(model, networks["denoiser"], "denoiser", "tensorrt")


def test_the_real_networks_have_what_their_layers_say(checkpoint):
    """By hand: 16 transformers of two attentions and three feed-forwards each, 22 residual blocks in the UNet."""
    config = CONFIGS["full"]
    with torch.device("meta"):
        vaes = build_vae(config), build_vae(config)
        unet, encoder = build_unet(config), build_image_encoder(config)
    networks: dict[str, Any] = {
        "denoiser": Denoiser.__new__(Denoiser),
        "vae_encoder": VaeEncoder(vaes[0]),
        "clip_encoder": ClipEncoder(encoder, load_feature_extractor(checkpoint[0])),
    }
    torch.nn.Module.__init__(networks["denoiser"])
    networks["denoiser"].unet = unet.half()
    found = {
        graph: {rule.name: rule.matches(network) for rule in (*ONNX, *TENSORRT, *LOW_MEMORY)}
        for graph, network in networks.items()
    }
    assert found["clip_encoder"].pop("decompose_attention") == 32
    assert not any(found["clip_encoder"].values())
    assert found["vae_encoder"]["use_instance_normalization"] == 22
    assert found["denoiser"]["blend_residuals"] == 22
    assert found["denoiser"]["split_feed_forwards"] == 48
    assert found["denoiser"]["normalize_over_frames"] == 44
    assert found["denoiser"]["slice_temporal_transformers"] == 10
    assert found["denoiser"]["decompose_attention"] == 0
