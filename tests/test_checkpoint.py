import dataclasses
import json
import logging

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dc_rt import UserError
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
    handler.emit = records.append
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
