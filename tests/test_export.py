import dataclasses
import importlib.metadata
import json
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dc_export import export_onnx, load_profile, verify_engines
from dc_export.export import versions_of_the_exporter
from dc_export.graphs import GRAPH_SPECS, ConstantBlender, Denoiser
from dc_rt import DepthCrafter, Noise, UserError
from dc_rt.engine import GRAPHS, Manifest
from depthcrafter import CONFIGS, load_unet, make_checkpoint
from depthcrafter.collapse import SingleKeyAttention


def test_collapsing_cross_attention_and_blenders_changes_nothing(checkpoint, reference):
    denoiser = Denoiser(load_unet(checkpoint[1]))
    kinds = [type(module) for module in denoiser.modules()]
    assert kinds.count(SingleKeyAttention) == 20  # ten transformers, spatial and temporal
    assert kinds.count(ConstantBlender) == 24  # these and the fourteen residual blocks
    rng = torch.Generator().manual_seed(0)
    noisy, image_latents = torch.randn(2, 1, 3, 4, 16, 24, generator=rng)
    embeddings = torch.randn(1, 3, 64, generator=rng)
    with torch.no_grad():
        denoised = denoiser(noisy, torch.tensor(2.0), image_latents, embeddings)
    expected = reference.denoise(noisy, 2.0, image_latents, embeddings)
    torch.testing.assert_close(denoised, expected, rtol=0, atol=2e-5)


def test_the_graphs_have_the_inputs_and_dynamic_axes_of_the_design(engines):
    for name, spec in GRAPH_SPECS.items():
        graph = onnx.load(engines / f"{name}.onnx").graph
        assert [value.name for value in graph.input] == list(spec.inputs)
        assert [value.name for value in graph.output] == [spec.output]
        for value in graph.input:
            dims = value.type.tensor_type.shape.dim
            assert {axis: dim.dim_param for axis, dim in enumerate(dims) if dim.dim_param} == spec.inputs[value.name]


def test_the_graphs_are_of_opset_23_and_have_no_cross_attention(engines):
    model = onnx.load(engines / "denoiser.onnx")
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [23]
    attention = [node for node in model.graph.node if node.op_type == "Attention"]
    assert len(attention) == 20  # each transformer's spatial and temporal self-attention


def test_the_graphs_tell_nothing_of_the_machine_that_made_them(engines, checkpoint):
    for name in GRAPHS:
        contents = (engines / f"{name}.onnx").read_bytes()
        assert b"site-packages" not in contents
        assert str(checkpoint[0]).encode() not in contents


def test_the_manifest_tells_what_the_set_is(engines, checkpoint):
    manifest = Manifest.read(engines)
    manifest.check_contents(engines)
    assert (manifest.flavour, manifest.precision, manifest.opset) == ("onnx", "fp32", 23)
    assert manifest.profile == load_profile("large")
    assert (manifest.model.base, manifest.model.unet) == tuple(str(folder) for folder in checkpoint)
    assert (manifest.model.embedding_dim, manifest.model.latent_channels) == (64, 4)
    assert manifest.versions["torch"] == torch.__version__


def test_every_graph_passes_verification(engines, checkpoint):
    comparisons = list(verify_engines(engines, *checkpoint, seed=3))
    assert {comparison.graph for comparison in comparisons} == set(GRAPHS)
    assert any(comparison.size.startswith("70 ") for comparison in comparisons)
    for comparison in comparisons:
        assert comparison.passed, comparison


def test_verification_finds_other_weights(engines, tmp_path):
    other = make_checkpoint(tmp_path, "tiny", seed=2)
    failed = {comparison.graph for comparison in verify_engines(engines, *other) if not comparison.passed}
    assert failed == set(GRAPHS)


@pytest.fixture(scope="module")
def half_engines(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("half") / "tiny"
    messages = []
    base, unet = checkpoint
    export_onnx(base, unet, folder, precision="fp16", profile="512x256", name="half", report=messages.append)
    assert all(any(graph in message for message in messages) for graph in GRAPHS)
    return folder


@pytest.mark.soak
def test_half_precision_halves_the_weights(engines, half_engines):
    for graph in GRAPHS:
        types = {tensor.data_type for tensor in onnx.load(half_engines / f"{graph}.onnx").graph.initializer}
        assert onnx.TensorProto.FLOAT16 in types
    for graph in ("vae_encoder", "denoiser"):
        assert (half_engines / f"{graph}.onnx").stat().st_size < 0.6 * (engines / f"{graph}.onnx").stat().st_size
    manifest = Manifest.read(half_engines)
    assert (manifest.precision, manifest.profile.name, manifest.model.name) == ("fp16", "512x256", "half")


@pytest.mark.soak
def test_half_precision_depth_is_near_full_precision(half_engines, model):
    frames = np.random.default_rng(0).integers(0, 256, (4, 256, 512, 3), dtype=np.uint8)
    half = np.stack(list(DepthCrafter.load(half_engines)(frames, noise=Noise(1), steps=2)))
    full = np.stack(list(model(frames, noise=Noise(1), steps=2)))
    assert 0 < np.abs(half - full).mean() < 5e-3


@pytest.mark.soak
def test_a_profile_of_one_size_refuses_others(half_engines):
    half = DepthCrafter.load(half_engines)
    with pytest.raises(UserError, match="profile 512x256"):
        list(half(np.zeros((1, 64, 64, 3), np.uint8)))


def test_an_export_that_cannot_be_is_one_sentence_and_writes_no_manifest(checkpoint, tmp_path):
    base, unet = checkpoint
    cases: list[tuple[dict[str, Any], str]] = [({"precision": "int8"}, "fp32, fp16"), ({"profile": "8k"}, "1024x576")]
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            export_onnx(base, unet, tmp_path / "out", **options)
    with pytest.raises(UserError, match="give a folder"):
        export_onnx(tmp_path / "nowhere", unet, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_unet_of_another_base_is_refused(checkpoint, tmp_path):
    config = dataclasses.replace(CONFIGS["tiny"], embedding_dim=32)
    _, other_unet = make_checkpoint(tmp_path / "other", config)
    with pytest.raises(UserError, match="trained with"):
        export_onnx(checkpoint[0], other_unet, tmp_path / "out", report=lambda message: None)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_versions_of_what_is_not_installed_are_left_out(monkeypatch):
    """As from a checkout by an interpreter that has all the others."""
    assert "depthcrafter-rt" in versions_of_the_exporter()
    version = importlib.metadata.version

    def of_others(package):
        if package == "depthcrafter-rt":
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", of_others)
    assert set(versions_of_the_exporter()) == {"torch", "diffusers", "transformers", "onnxscript", "onnx", "onnx-ir"}


def test_all_profiles_of_the_issue_load():
    for name in ("any", "large", "1024x576", "512x256", "sintel", "scannet", "KITTI", "bonn", "NYUv2"):
        profile = load_profile(name)
        for side in (profile.height, profile.width):
            assert side.min <= side.opt <= side.max
            assert side.min % 64 == side.opt % 64 == side.max % 64 == 0
    assert json.dumps(dataclasses.asdict(load_profile("any")))
