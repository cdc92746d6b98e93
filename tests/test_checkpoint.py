import dataclasses
import json
import logging
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dc_export import export_onnx
from dc_rt import UserError
from dc_rt.engine.discovery import BUNDLED
from depthcrafter import (
    CONFIGS,
    load_image_encoder,
    load_pipeline,
    load_scheduler,
    load_unet,
    load_vae,
    make_checkpoint,
)


def test_the_layout_is_that_of_the_hub(checkpoint):
    base, unet = checkpoint
    index = json.loads((base / "model_index.json").read_text())
    assert index["_class_name"] == "StableVideoDiffusionPipeline"
    for file in (
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
    ):
        assert (base / file).is_file(), file
    assert (unet / "config.json").is_file()
    assert (unet / "diffusion_pytorch_model.safetensors").is_file()


def test_a_seed_decides_the_weights(tmp_path, checkpoint):
    make_checkpoint(tmp_path / "again", "tiny", seed=1)
    make_checkpoint(tmp_path / "other", "tiny", seed=2)
    name = "unet/diffusion_pytorch_model.safetensors"
    first, again, other = (
        load_file(folder / name) for folder in (checkpoint[0], tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_the_full_configuration_is_the_real_one():
    full = CONFIGS["full"]
    assert full.unet_channels == (320, 640, 1280, 1280)
    assert full.unet_heads == (5, 10, 20, 20)
    assert full.vae_channels == (128, 256, 512, 512)
    assert (full.clip_hidden, full.clip_layers, full.clip_heads, full.embedding_dim) == (1280, 32, 16, 1024)


def test_activations_are_sane(reference):
    frames = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    rng = torch.Generator().manual_seed(0)
    embeddings, image_latents = (
        reference.embed(frames),
        reference.encode(frames, np.zeros((8, 3, 128, 128), np.float32)),
    )
    assert 0.3 < embeddings.std() < 3
    assert 1 < image_latents.std() < 20
    latents = torch.randn(1, 8, 4, 16, 16, generator=rng)
    for sigma in (700.0, 1.0, 0.002):
        denoised = reference.denoise(latents * sigma, sigma, image_latents[None], embeddings[None])
        v = (latents * sigma / (sigma**2 + 1) - denoised) * (sigma**2 + 1) ** 0.5 / sigma
        assert 0.2 < v.std() < 5
    depth = reference.decode(latents[0])
    assert depth.std() > 0.02
    assert (depth <= 0).float().mean() < 1e-3
    assert (depth >= 1).float().mean() < 1e-3


def test_every_input_of_the_unet_matters(reference):
    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 3, 4, 16, 16, generator=rng) for _ in range(2)] + [torch.randn(1, 3, 64, generator=rng)]
    base = reference.denoise(inputs[0], 2.0, inputs[1], inputs[2])
    assert (reference.denoise(inputs[0], 2.5, inputs[1], inputs[2]) - base).abs().max() > 1e-2
    for i in range(3):
        changed = [x + (0.5 if j == i else 0) for j, x in enumerate(inputs)]
        assert (reference.denoise(changed[0], 2.0, changed[1], changed[2]) - base).abs().max() > 1e-2
    # A frame far away matters too: the temporal layers reach it.
    far = inputs[1].clone()
    far[:, 2] += 1
    assert (reference.denoise(inputs[0], 2.0, far, inputs[2]) - base)[:, 0].abs().max() > 1e-3


def test_half_precision_is_loaded_from_either_variant(tmp_path, checkpoint):
    half = dataclasses.replace(CONFIGS["tiny"], dtype="float16")
    base, unet = make_checkpoint(tmp_path, half, seed=1)
    assert (base / "vae/diffusion_pytorch_model.fp16.safetensors").is_file()
    assert (base / "image_encoder/model.fp16.safetensors").is_file()
    records = []
    handler = logging.Handler()
    setattr(handler, "emit", records.append)  # noqa: B010 - a method
    diffusers.utils.logging.add_handler(handler)
    for folders in ((base, unet), checkpoint):
        for dtype in (torch.float16, torch.float32):
            pipeline = load_pipeline(*folders, dtype=dtype)
            assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.image_encoder.dtype} == {dtype}
    # Asked for a variant that is not there, diffusers prints an error before it raises one.
    diffusers.utils.logging.remove_handler(handler)
    assert not [record for record in records if record.levelno >= logging.ERROR]


def test_half_precision_depth_is_near_full_precision(checkpoint, reference):
    frames = np.random.default_rng(0).integers(0, 256, (5, 128, 64, 3), dtype=np.uint8)
    half = load_pipeline(*checkpoint, dtype=torch.float16)(frames, steps=2)
    full = reference(frames, steps=2)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).mean() < 5e-3


@pytest.mark.parametrize("load", [load_unet, load_vae, load_image_encoder, load_scheduler])
def test_a_missing_checkpoint_is_one_sentence(tmp_path, load):
    with pytest.raises(UserError, match="give a folder") as error:
        load(tmp_path / "nowhere")
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused(tmp_path, checkpoint):
    unet = load_unet(checkpoint[1])
    unet.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.glob("*.bin"))
    with pytest.raises(UserError, match="safetensors"):
        load_unet(tmp_path)


def test_another_schedule_is_refused(tmp_path, checkpoint):
    base = checkpoint[0]
    config = json.loads((base / "scheduler/scheduler_config.json").read_text()) | {"sigma_max": 80.0}
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="sigma_max=80"):
        load_scheduler(tmp_path)


def test_random_checkpoints_have_names(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    named = load_unet("random:tiny:5")
    _, unet = make_checkpoint(tmp_path / "made", "tiny", seed=5)
    made = load_unet(unet)
    assert torch.equal(named.conv_in.weight, made.conv_in.weight)
    for wrong in ("random:huge", "random:tiny:x"):
        with pytest.raises(UserError, match="random:tiny"):
            load_unet(wrong)


def change(file, changed):
    """Rewrite a safetensors file with `changed` of what is in it, a dictionary by name."""
    save_file(changed(load_file(file)), file)


def without(key):
    return lambda weights: {name: value for name, value in weights.items() if name != key}


def with_value(key, value):
    return lambda weights: weights | {key: value(weights[key])}


LOADERS = {"unet": load_unet, "vae": load_vae, "image_encoder": load_image_encoder}
FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "image_encoder": "image_encoder/model.safetensors",
}
KEYS = {
    "unet": "mid_block.resnets.0.time_mixer.mix_factor",
    "vae": "decoder.conv_in.bias",
    "image_encoder": "vision_model.encoder.layers.1.mlp.fc1.bias",
}


@pytest.fixture
def copy(checkpoint, tmp_path):
    return Path(shutil.copytree(checkpoint[0], tmp_path / "copy"))


def refused(network, base):
    with pytest.raises(UserError) as error:
        LOADERS[network](base / "unet" if network == "unet" else base)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("network", LOADERS)
def test_weights_that_are_missing_unknown_or_of_another_shape_are_named(copy, network):
    file, key = copy / FILES[network], KEYS[network]
    whole = file.read_bytes()
    change(file, without(key))
    assert f"lacks 1 of its {len(load_file(file)) + 1} weights ({key})" in refused(network, copy)
    change(file, lambda weights: weights | {"more.weight": torch.ones(1)})
    sentence = refused(network, copy)
    assert "lacks 1 of" in sentence
    assert "has 1 that are no weights of it (more.weight)" in sentence
    file.write_bytes(whole)
    change(file, with_value(key, lambda value: torch.cat([value, value])))
    assert f"({key} [" in refused(network, copy)
    change(file, lambda weights: {f"wrapped.{name}": value for name, value in weights.items()})
    sentence = refused(network, copy)
    assert "lacks" in sentence
    assert "wrapped." in sentence


@pytest.mark.parametrize("network", LOADERS)
def test_weights_that_are_not_finite_are_named(copy, network):
    file, key = copy / FILES[network], KEYS[network]
    change(file, with_value(key, lambda value: torch.full_like(value, float("nan"))))
    assert f"not finite in fp32 ({key})" in refused(network, copy)
    change(file, with_value(key, lambda value: torch.full_like(value, 1e6)))
    base = copy / "unet" if network == "unet" else copy
    LOADERS[network](base)
    with pytest.raises(UserError, match="not finite in fp16"):
        LOADERS[network](base, torch.float16)


@pytest.mark.parametrize("network", LOADERS)
def test_a_file_that_is_cut_short_is_a_sentence_and_no_other_is_taken_for_it(copy, network):
    file = copy / FILES[network]
    half = load_file(file)
    save_file({name: value.half() for name, value in half.items()}, file.with_suffix(".fp16.safetensors"))
    contents = file.read_bytes()
    for damaged in (contents[:-100], contents[:5], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(damaged)
        sentence = refused(network, copy)
        assert f"{file} is damaged or cut short" in sentence


def test_a_variant_serves_where_the_other_is_not_there(copy):
    file = copy / FILES["vae"]
    save_file({name: value.half() for name, value in load_file(file).items()}, file.with_suffix(".fp16.safetensors"))
    file.unlink()
    assert load_vae(copy).dtype == torch.float32


@pytest.mark.parametrize("network", LOADERS)
def test_a_configuration_of_something_else_is_a_sentence(copy, network):
    path = (copy / FILES[network]).with_name("config.json")
    config = json.loads(path.read_text())
    broken = {
        "unet": {"down_block_types": ["None"]},
        "vae": {"block_out_channels": 7},
        "image_encoder": {"hidden_size": "wide"},
    }
    others = {"unet": {"in_channels": 4}, "vae": {"latent_channels": 8}, "image_encoder": {"num_hidden_layers": 3}}
    for wrong in (json.dumps(config)[:-9], "[]", json.dumps(config | broken[network])):
        path.write_text(wrong)
        refused(network, copy)
    path.write_text(json.dumps(config | others[network]))
    assert "config.json" in refused(network, copy) or network == "image_encoder"


def test_constants_that_were_once_stored_are_no_fault(copy):
    file = copy / FILES["image_encoder"]
    ids = {"vision_model.embeddings.position_ids": torch.arange(257).unsqueeze(0)}
    change(file, lambda weights: weights | ids)
    load_image_encoder(copy)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_unet_may_be_a_single_file(copy, tmp_path, prefix):
    expected = load_unet(copy / "unet").state_dict()
    weights = {f"{prefix}{name}": value for name, value in load_file(copy / FILES["unet"]).items()}
    others = {"first_stage_model.decoder.weight": torch.ones(1), "conditioner.bias": torch.ones(1)} if prefix else {}
    single = tmp_path / "single" / "depthcrafter.safetensors"
    single.parent.mkdir()
    save_file(weights | others, single)
    with pytest.raises(UserError, match=r"another size than the real one, and there is no config\.json beside it"):
        load_unet(single)
    shutil.copy(copy / "unet/config.json", single.parent)
    found = load_unet(single).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    # In a folder the prefix is read as well.
    save_file(weights, copy / FILES["unet"])
    assert all(torch.equal(value, expected[name]) for name, value in load_unet(copy / "unet").state_dict().items())


def test_a_single_file_that_is_no_such_unet_is_a_sentence(copy, tmp_path):
    single = tmp_path / "svd_xt.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}, single)
    with pytest.raises(UserError, match="names of Stable Video Diffusion's original code") as error:
        load_unet(single)
    assert "\n" not in str(error.value)
    pickled = tmp_path / "unet.ckpt"
    pickled.write_bytes(b"PK")
    with pytest.raises(UserError, match="pickles are never read"):
        load_unet(pickled)


def test_all_networks_are_checked_before_anything_is_traced_or_written(copy, tmp_path):
    for network, file in FILES.items():
        change(copy / file, without(KEYS[network]))
    out = Path(shutil.copytree(BUNDLED, tmp_path / "set"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    said = []
    with pytest.raises(UserError) as error:
        export_onnx(copy, copy / "unet", out, report=said.append)
    assert all(f"({key})" in str(error.value) for key in KEYS.values())
    assert not any("tracing" in line for line in said)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_weights_in_parts_are_read_and_a_missing_part_is_named(copy):
    model = load_vae(copy)
    for path in (copy / "vae").glob("*.safetensors"):
        path.unlink()
    model.save_pretrained(copy / "vae", max_shard_size="500kB")
    parts = sorted((copy / "vae").glob("*-of-*.safetensors"))
    assert len(parts) > 1
    again = load_vae(copy).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    parts[0].unlink()
    with pytest.raises(UserError, match=f"only {len(parts) - 1} of the {len(parts)} parts"):
        load_vae(copy)
