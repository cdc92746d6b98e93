"""The reference against diffusers' own parts, called directly."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

from dc_rt import Noise, UserError
from depthcrafter import DepthCrafterUNet, load_pipeline


def clip(num_frames, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def svd(checkpoint):
    """Diffusers' own pipeline on the base, loaded by diffusers from the folder as from the hub."""
    pipeline = StableVideoDiffusionPipeline.from_pretrained(checkpoint[0])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixels(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def test_embeddings_are_those_of_diffusers_preprocessing_and_clip(reference, svd):
    frames = clip(3, 128, 192)
    images = (_resize_with_antialiasing(pixels(frames), (224, 224)) + 1) / 2
    inputs = svd.feature_extractor(
        images=list(images),
        do_resize=False,
        do_center_crop=False,
        do_rescale=False,
        do_normalize=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        expected = svd.image_encoder(inputs.pixel_values).image_embeds
    torch.testing.assert_close(reference.embed(frames), expected, rtol=0, atol=1e-5)


def test_image_latents_are_the_mode_of_diffusers_vae_unscaled(reference, svd):
    frames = clip(2, 128, 64)
    noise = 0.02 * Noise(1).frame(0, (2, 3, 128, 64))
    with torch.no_grad():
        expected = svd.vae.encode(pixels(frames) + torch.from_numpy(noise)).latent_dist.mean
    torch.testing.assert_close(reference.encode(frames, noise), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 7, 8, 11])
def test_depth_is_that_of_diffusers_decode_latents_in_chunks_of_8(reference, svd, num_frames):
    latents = torch.from_numpy(Noise(2).latent(0, (num_frames, 4, 16, 8)))
    with torch.no_grad():
        video = svd.decode_latents(latents[None], num_frames, decode_chunk_size=8)
    images = svd.video_processor.postprocess_video(video, output_type="np")[0]
    chunks = [reference.decode(latents[i : i + 8]) for i in range(0, num_frames, 8)]
    np.testing.assert_allclose(torch.cat(chunks).numpy(), images.mean(axis=-1), atol=1e-6)


def test_the_unet_conditions_every_frame_on_its_own_embedding(reference):
    rng = torch.Generator().manual_seed(0)
    x, context = torch.randn(1, 3, 8, 16, 16, generator=rng), torch.randn(1, 3, 64, generator=rng)
    changed = context.clone()
    changed[0, 2] += 1
    time_ids = torch.tensor([[7, 127, 0.02]])
    with torch.no_grad():
        v = reference.unet(x, torch.tensor(0.3), context, time_ids).sample
        v_changed = reference.unet(x, torch.tensor(0.3), changed, time_ids).sample
    difference = (v - v_changed).abs().mean(dim=(0, 2, 3, 4))
    assert difference[2] > 1.5 * difference[:2].max() > 0


def test_the_unet_with_one_shared_embedding_is_diffusers_own(reference):
    """Where all embeddings are equal, the subclass must compute what its parent does."""
    rng = torch.Generator().manual_seed(0)
    x, embedding = torch.randn(1, 3, 8, 16, 16, generator=rng), torch.randn(1, 1, 64, generator=rng)
    time_ids = torch.tensor([[7, 127, 0.02]])
    with torch.no_grad():
        ours = reference.unet(x, torch.tensor(0.3), embedding.expand(1, 3, 64), time_ids).sample
        parent = super(DepthCrafterUNet, reference.unet).forward(x, torch.tensor(0.3), embedding, time_ids).sample
    torch.testing.assert_close(ours, parent, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("num_frames", "guidance_scale"), [(19, 1.2), (6, 1.0)])
def test_a_video_is_what_diffusers_scheduler_makes_of_it(reference, svd, num_frames, guidance_scale):
    """The algorithm once more, as the original states it: diffusers' scheduler, whole arrays, v-predictions mixed."""
    window, overlap, height, width = 8, 5, 128, 64
    frames, noise = clip(num_frames, height, width), Noise(3)
    unet, scheduler = reference.unet, svd.scheduler
    eps = np.stack([noise.frame(i, (3, height, width)) for i in range(num_frames)])
    with torch.no_grad():
        embeddings = reference.embed(frames)[None]
        image_latents = svd.vae.encode(pixels(frames) + 0.02 * torch.from_numpy(eps)).latent_dist.mode()[None]
        if num_frames <= window:
            window, overlap = num_frames, 0
        scheduler.set_timesteps(5)
        initial = torch.from_numpy(np.stack([noise.latent(i, (4, height // 8, width // 8)) for i in range(window)]))[
            None
        ]
        initial = initial * scheduler.init_noise_sigma
        result, start = None, 0
        while start < num_frames - overlap:
            end = min(start + window, num_frames)
            scheduler.set_timesteps(5)
            x = initial[:, : end - start].clone()
            initial = torch.cat([initial[:, window - overlap :], initial[:, : window - overlap]], dim=1)
            if result is not None:
                x[:, :overlap] = (
                    result[:, -overlap:] + x[:, :overlap] / scheduler.init_noise_sigma * scheduler.sigmas[0]
                )
            for t in scheduler.timesteps:
                scaled = scheduler.scale_model_input(x, t)
                ids = torch.tensor([[7, 127, 0.02]])
                condition = embeddings[:, start:end]
                v = unet(torch.cat([scaled, image_latents[:, start:end]], 2), t, condition, ids).sample
                if guidance_scale > 1:
                    blank = torch.cat([scaled, torch.zeros_like(scaled)], 2)
                    v_blank = unet(blank, t, torch.zeros_like(condition), ids).sample
                    v = v_blank + guidance_scale * (v - v_blank)
                x = scheduler.step(v, t, x).prev_sample
            if result is None:
                result = x
            else:
                w = torch.linspace(0, 1, overlap).view(1, overlap, 1, 1, 1)
                result[:, -overlap:] = x[:, :overlap] * w + result[:, -overlap:] * (1 - w)
                result = torch.cat([result, x[:, overlap:]], dim=1)
            start += window - overlap
        video = svd.video_processor.postprocess_video(svd.decode_latents(result, num_frames, 8), output_type="np")[0]

    depth = reference(frames, steps=5, guidance_scale=guidance_scale, window_size=8, overlap=5, noise=noise)
    assert depth.std() > 0.02
    np.testing.assert_allclose(depth, video.mean(axis=-1), atol=1e-5)


def test_options_that_cannot_be_had_here_are_an_error(checkpoint):
    with pytest.raises(UserError, match="cpu"):
        load_pipeline(*checkpoint, cpu_offload="model")
    with pytest.raises(UserError, match="offload"):
        load_pipeline(*checkpoint, cpu_offload="layers")
    with pytest.raises(UserError, match="attention"):
        load_pipeline(*checkpoint, attention="dazzle")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="CUDA"):
            load_pipeline(*checkpoint, device="cuda")
        with pytest.raises(UserError, match="xformers"):
            load_pipeline(*checkpoint, attention="xformers")


def test_the_vae_class_is_the_real_checkpoints(reference):
    assert isinstance(reference.vae, AutoencoderKLTemporalDecoder)
