"""Train nano: the VAE, then its decoder once more, then the image encoder, then the UNet, in four stages.

    python -m depthcrafter.nano.train checkpoints/nano
    torchrun --nproc-per-node 2 -m depthcrafter.nano.train checkpoints/nano

About seven hours on one CPU core; a GPU is used when there is one. Two processes halve the last stage's time and share
one GPU or none. The same seed on the same machine gives the same weights. An interrupted training goes on where it was
when the command is run again. The curves are written to log.csv and curve.png in the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.attention_processor import Attention
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from dc_rt.schedule import RHO, SIGMA_MAX, SIGMA_MIN, karras_sigmas
from depthcrafter.layout import (
    CONFIGS,
    build_image_encoder,
    build_scheduler,
    build_unet,
    build_vae,
    save_network,
    save_rest,
)
from depthcrafter.nano.data import TRAINING_SEEDS, VALIDATION_SEEDS, Bucket, EncodedClips, encoded, rendered
from depthcrafter.pipeline import ADDED_TIME_IDS, DepthCrafterPipeline
from depthcrafter.unet import DepthCrafterUNet

SAVE_EVERY = 200
LOG_EVERY = 20
# Of the logarithm of 0.2 plus a scene's disparity.
COARSE_MEAN, COARSE_SPREAD = -0.72, 0.54
# How much wrong changes from frame to frame weigh against wrong frames.
CHANGE = 8.0
# The noise levels at which the state that the UNet itself comes to matters: above, noise hides it; below, it is final.
OWN_SIGMAS = 0.3, 50.0
# The fourth stage of the UNet: how much wrong changes and the disagreement of windows that share frames weigh against
# wrong frames, and wrong relative depth against wrong latents; and how often it has the noise of a run's steps.
WIDE_CHANGE, SEAM, RELATIVE = 2.0, 4.0, 1.0
# How often it looks at one frame of a great many rooms, at long clips, and at clips of the demonstration's size; and
# how many frames of them a window has. Windows of two frames are left out: on a CPU, PyTorch 2.13's gradient of a
# temporal convolution over two frames in bfloat16 is wrong, and at times not a number.
WIDE_LEVELS = 0.4, 0.05, 0.15, 0.4, 0.0
WIDE_PARTS = 0.55, 0.33, 0.12
WIDE_FRAMES = (
    ([1, 4], [0.75, 0.25]),
    ([4, 8, 16, 32, 110], [0.3, 0.36, 0.26, 0.06, 0.02]),
    ([1, 6], [0.4, 0.6]),
)
# The third stage of the UNet looks most at the noise levels of so many steps, in these parts: where the picture is all
# but done, noise must be told from it exactly, or it flickers.
LAST_STEPS, LAST_PARTS = 5, (0.2, 0.1, 0.2, 0.5, 0.0)


@dataclass(frozen=True)
class Recipe:
    """How much of what. The defaults are the bundled model's."""

    seed: int = 0
    vae_steps: int = 1800
    vae_decoder_steps: int = 500
    image_encoder_steps: int = 800
    unet_steps: int = 4500
    unet_own_steps: int = 4500
    unet_last_steps: int = 1600
    unet_wide_steps: int = 7000
    # Frames of 128x192 that the UNet sees a step.
    unet_frames: int = 32
    pixel_clips: int = 1600
    clips: int = 1600
    large_clips: int = 60
    clip_frames: int = 8
    wide_clips: int = 12_000
    long_clips: int = 500
    large_wide_clips: int = 200

    def pixels(self) -> Bucket:
        """What the VAE and the image encoder are trained on."""
        return Bucket("pixels", TRAINING_SEEDS, self.pixel_clips, 6, 128, 192)

    def buckets(self) -> list[Bucket]:
        """What the UNet is trained on: a great many small clips and some at the size of the demonstration."""
        return [
            Bucket("small", TRAINING_SEEDS, self.clips, self.clip_frames, 128, 192),
            Bucket("large", TRAINING_SEEDS + self.clips, self.large_clips, self.clip_frames, 192, 320),
        ]

    def wide_buckets(self) -> list[Bucket]:
        """What the UNet's last stage is trained on: rooms that the others never saw, as `WIDE_PARTS` has them."""
        return [
            Bucket("wide", TRAINING_SEEDS + 2_000, self.wide_clips, 1, 128, 192),
            Bucket("long", TRAINING_SEEDS + 14_000, self.long_clips, 2 * self.clip_frames, 128, 192),
            Bucket("large-wide", TRAINING_SEEDS + 15_000, self.large_wide_clips, 4, 192, 320),
        ]

    def validation(self) -> Bucket:
        """What the UNet's curve is measured on."""
        return Bucket("validation", VALIDATION_SEEDS, min(16, self.clips), self.clip_frames, 128, 192)


class Stage:
    """The loop that all trainings share: AdamW with warm-up and cosine, an average of the weights, saved states.

    A step may have several parts, whose gradients are averaged. Where there are several processes, each takes its
    share of them; the weights end the same, but for the order in which more than two gradients are added.

    Args:
        name: of the files and in the log.
        model: trained in place; ends as the exponential average of itself.
        loss: the loss of a part of a step; draws what it needs from the generators of that step, so that a resumed
            training sees what an uninterrupted one would have seen. The first generator is the same for all parts of
            a step, so that what it decides, sizes, keeps processes in step; the second is the part's own.
        parts: of a step.
        validate: a figure for the log, of the averaged weights, every `SAVE_EVERY` steps.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        loss: Callable[[np.random.Generator, torch.Generator, float], torch.Tensor],
        *,
        steps: int,
        learning_rate: float,
        seed: int,
        folder: Path,
        validate: Callable[[nn.Module], float] | None = None,
        parts: int = 1,
    ) -> None:
        self.name, self.model, self.loss, self.validate = name, model, loss, validate
        self.steps, self.learning_rate, self.seed, self.parts = steps, learning_rate, seed, parts
        self.state, self.log = folder / "state" / f"{name}.pt", folder / "log.csv"
        self.average = {key: value.clone() for key, value in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.step = 0

    def run(self) -> None:
        """Train to the end, from where a saved state left off."""
        if self.state.exists():
            self._resume()
        self.model.train()
        losses: list[float] = []
        began = time.monotonic()
        while self.step < self.steps:
            losses.append(self._train_step())
            self.step += 1
            done = self.step == self.steps
            if done or self.step % LOG_EVERY == 0:
                checked = done or self.step % SAVE_EVERY == 0
                figure = self._validate() if self.validate and checked else None
                loss = float(_summed([torch.tensor(np.mean(losses))])[0])
                losses = []
                if _rank() == 0:
                    self._write_log(loss, figure, time.monotonic() - began)
                    if checked:
                        self._save()
        self.model.load_state_dict(self.average)
        self.model.eval().requires_grad_(False)

    def _train_step(self) -> float:
        progress = self.step / self.steps
        rate = self.learning_rate * min(1.0, (self.step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(_rank(), self.parts, _processes()):
            rng = np.random.default_rng([self.seed, self.step])
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)) + part)
            loss = self.loss(rng, generator, progress) / self.parts
            loss.backward()
            total += float(loss.detach())
        if _processes() > 1:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
            for parameter, gradient in zip(trained, _summed(gradients), strict=True):
                parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # A short memory at first, so that the average soon forgets the start.
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return total

    def _validate(self) -> float:
        assert self.validate is not None
        current = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        with torch.no_grad():
            figure = self.validate(self.model)
        self.model.load_state_dict(current)
        self.model.train()
        return figure

    def _save(self) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        beside = self.state.with_suffix(".partial")
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, beside)
        beside.replace(self.state)

    def _resume(self) -> None:
        state = torch.load(self.state, weights_only=True)
        self.step, self.average = state["step"], state["average"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _write_log(self, loss: float, figure: float | None, seconds: float) -> None:
        new = not self.log.exists()
        with self.log.open("a", newline="") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(["stage", "step", "loss", "validation", "seconds"])
            rows.writerow(
                [self.name, self.step, f"{loss:.5f}", "" if figure is None else f"{figure:.5f}", f"{seconds:.0f}"]
            )


def train_vae(vae: AutoencoderKLTemporalDecoder, recipe: Recipe, folder: Path, device: torch.device) -> None:
    """Reconstruct frames and disparity maps, and let the latents tell the disparity.

    The first channel of the latents, of a disparity map as of a frame, is taught to be the disparity's logarithm where
    it lies: exactly for the map, as far as one frame tells for the frame. What the frame's other channels hold must
    tell it better still to a few convolutions that are thrown away. A VAE this small would keep little else of the
    frame than its edges otherwise, and the UNet sees the frame through these latents.

    Most of the steps are at half the size. The posterior's variance is held at a constant: noise of a tenth of the
    latents' spread makes the decoder forgive the UNet's small errors, and a penalty on the latents' moments keeps their
    spread at 1 / scaling_factor.
    """
    frames, disparity = _rendered(recipe, folder)
    scaling: float = vae.config.scaling_factor
    noise_level = 0.1
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        head = _depth_head().to(device)
    model = nn.ModuleDict({"vae": vae, "head": head})

    def loss(rng: np.random.Generator, generator: torch.Generator, progress: float) -> torch.Tensor:
        half = progress < 0.6
        # One frame a clip to tell its disparity, and a chunk of one clip to reconstruct.
        clips, times = rng.integers(len(frames), size=24 if half else 8), rng.integers(frames.shape[1])
        num_frames = int(rng.choice([1, 4, 8], p=[0.1, 0.6, 0.3] if half else [0.5, 0.47, 0.03]))
        chunk = rng.integers(len(frames)), _to_and_fro(rng, frames.shape[1], num_frames)
        mirror, colours = rng.random() < 0.5, rng.permutation(3)
        images, depths, more = (
            _pixels(array[index], mirror, half, device)
            for array, index in ((frames, (clips, times)), (disparity, (clips, times)), (disparity, chunk))
        )
        images, chunk_grey = images[:, colours] * (2 / 255) - 1, more.expand(-1, 3, -1, -1) * 2 - 1
        with _half(device):
            latents = (
                vae.encode(torch.cat([images, chunk_grey]).contiguous()).latent_dist.mode().float().contiguous()
                * scaling
            )
            image_latents, grey_latents = latents[: len(images)], latents[len(images) :]
            noise = torch.randn(grey_latents.shape, generator=generator).to(device)
            output = vae.decode((grey_latents + noise_level * noise) / scaling, num_frames=num_frames).sample
            told = head(image_latents).float()
        error = 3 * _sharp_error(output.float(), chunk_grey).mean()
        error += 2 * (grey_latents[:, :1] - _coarse(more)).abs().mean()
        target = _coarse(depths)
        error += (image_latents[:, :1] - target).abs().mean() + (told - target).abs().mean()
        if rng.random() < 0.25:
            few = slice(4 if half else 1)
            with _half(device):
                output = vae.decode(image_latents[few] / scaling, num_frames=1).sample
            error += _sharp_error(output.float(), images[few]).mean()
        for part in (image_latents, grey_latents):
            moments = part.mean((0, 2, 3)).square().mean() + (part.var((0, 2, 3)) - 1).square().mean()
            error += 0.02 * moments
        return error

    with torch.no_grad():
        vae.quant_conv.weight[:4] /= scaling
        vae.decoder.conv_in.weight *= scaling
    Stage("vae", model, loss, steps=recipe.vae_steps, learning_rate=1.5e-3, seed=recipe.seed, folder=folder).run()
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = 2 * math.log(noise_level / scaling)


def train_vae_decoder(vae: AutoencoderKLTemporalDecoder, recipe: Recipe, folder: Path, device: torch.device) -> None:
    """Let the decoder be steady: what stands still in the latents stands still in the disparity.

    The first and the last frame of a chunk lack a neighbour, and a decoder that never saw a still chunk shows it. Half
    of the chunks are one frame over and over. The latents' noise is mostly the same for all frames, as the UNet's
    errors are. The encoder stays as it is.
    """
    _, disparity = _rendered(recipe, folder)
    scaling: float = vae.config.scaling_factor

    def loss(rng: np.random.Generator, generator: torch.Generator, progress: float) -> torch.Tensor:
        half = progress < 0.7
        num_frames = int(rng.choice([1, 4, 8], p=[0.1, 0.3, 0.6]))
        way = _to_and_fro(rng, disparity.shape[1], num_frames)
        if rng.random() < 0.5:
            way[:] = way[0]
        chunk = rng.integers(len(disparity)), way
        grey = _pixels(disparity[chunk], rng.random() < 0.5, half, device).expand(-1, 3, -1, -1) * 2 - 1
        with _half(device):
            with torch.no_grad():
                latents = vae.encode(grey.contiguous()).latent_dist.mode().float()
            common, own = (
                torch.randn((n, *latents.shape[1:]), generator=generator).to(device) for n in (1, num_frames)
            )
            latents = latents + (0.1 * rng.random() * common + 0.02 * own) / scaling
            output = vae.decode(latents, num_frames=num_frames).sample.float()
        error = _sharp_error(output, grey).mean()
        if num_frames > 1:
            error += CHANGE * (output - grey).diff(dim=0).abs().mean()
        return error

    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    Stage(
        "vae_decoder",
        vae.decoder,
        loss,
        steps=recipe.vae_decoder_steps,
        learning_rate=5e-4,
        seed=recipe.seed + 3,
        folder=folder,
    ).run()


def train_image_encoder(
    encoder: CLIPVisionModelWithProjection,
    vae: AutoencoderKLTemporalDecoder,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
) -> None:
    """Make the embedding tell a frame's coarse disparity, through a linear layer that is then thrown away."""
    frames, disparity = _rendered(recipe, folder)
    rows, columns = 6, 8
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        head = nn.Linear(encoder.config.projection_dim, rows * columns).to(device)
    model = nn.ModuleDict({"encoder": encoder, "head": head})
    pipeline = _pipeline(vae, encoder, None)

    def loss(rng: np.random.Generator, generator: torch.Generator, progress: float) -> torch.Tensor:
        index = rng.integers(len(frames), size=24), rng.integers(frames.shape[1], size=24)
        order = np.lexsort(index)
        index = index[0][order], index[1][order]
        coarse = torch.from_numpy(disparity[index].astype(np.float32)).to(device)
        target = F.adaptive_avg_pool2d(_coarse(coarse[:, None]), (rows, columns)).flatten(1)
        embeddings = pipeline.embed.__wrapped__(pipeline, frames[index])
        # The embeddings' spread is kept near 1, as the real encoder's is.
        return (head(embeddings) - target).square().mean() + 0.01 * (embeddings.std() - 1).square()

    steps = recipe.image_encoder_steps
    Stage("image_encoder", model, loss, steps=steps, learning_rate=2e-3, seed=recipe.seed + 1, folder=folder).run()


def train_unet(
    unet: DepthCrafterUNet, pipeline: DepthCrafterPipeline, recipe: Recipe, folder: Path, device: torch.device
) -> None:
    """Predict v of the disparity's latents, conditioned on the clip's latents and embeddings.

    Noise levels are spread over the schedule (the rho-parameter of Karras et al. 2022, from 700 to 0.002), most of
    them towards its start, where all of the picture is made. The first of the latents' channels, in which the VAE was
    taught to tell the disparity, counts three times. Clips are read forwards and backwards, and to and
    fro for windows that are longer than they are, up to the 110 frames of a full window.

    That is the first stage. In the second, noise is added not to the true latents but to those that the UNet predicts
    from noise alone: what it meets when it samples. Its own guess tells it nothing new about the clip, so that it
    ceases to read a picture into the noise, which differs from frame to frame. And its changes from frame to frame are
    compared with the true ones. The third is the second at the noise levels that a run of a few steps has.

    The fourth goes on from there, from weights rounded to float16 as they are published, with rooms that the UNet never
    saw, so many that most are seen a few times only. Windows come in pairs that share a quarter of their frames, each
    with noise of its own, and their disagreement on these counts. So does the relative error of the disparity that the
    first channel tells, once aligned as the evaluation aligns it.
    """
    with _first_then_others():
        buckets, wide_buckets = (
            [encoded(bucket, pipeline, folder / "cache", recipe.seed) for bucket in some]
            for some in (recipe.buckets(), recipe.wide_buckets())
        )
        validation = encoded(recipe.validation(), pipeline, folder / "cache", recipe.seed)
    added_time_ids = torch.tensor([ADDED_TIME_IDS], device=device)
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0], device=device).view(4, 1, 1) / 1.5
    unet.set_attn_processor(_PlainAttention())
    with torch.no_grad():
        # The image latents come unscaled.
        unet.conv_in.weight[:, 4:] *= pipeline.vae.config.scaling_factor

    def denoise(
        noisy: torch.Tensor, sigma: torch.Tensor, image_latents: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """D, [B,T,4,h,w], of latents with noise of levels sigma, [B,1,1,1,1]."""
        spread = (sigma**2 + 1).sqrt()
        with _half(device):
            v = unet(
                torch.cat([noisy / spread, image_latents], dim=2),
                sigma.flatten().log() / 4,
                embeddings,
                added_time_ids.expand(len(noisy), -1),
                return_dict=False,
            )[0].float()
        denoised: torch.Tensor = noisy / spread**2 - v * sigma / spread
        return denoised

    def d_loss(
        clips: EncodedClips,
        index: tuple[NDArray[np.intp], NDArray[np.intp]],
        sigma: torch.Tensor,
        keep: torch.Tensor,
        generator: torch.Generator,
        own: bool = False,
    ) -> torch.Tensor:
        """Squared error of D, [B]: in the first stage weighted as v is, but for noise too faint to matter; in the
        second, `own`, weighted evenly, with that of its changes."""
        if own:
            error, _ = own_error(clips, index, sigma, keep, generator)
            loss = (weights * error.square()).mean((1, 2, 3, 4))
            if error.shape[1] > 1:
                loss = loss + CHANGE * (weights * error.diff(dim=1).square()).mean((1, 2, 3, 4))
            return loss
        latents, image_latents, embeddings, sigma, noise = drawn(clips, index, sigma, keep, generator)
        error = weights * (denoise(latents + sigma * noise, sigma, image_latents, embeddings) - latents).square()
        return (error * (sigma**2 + 1) / (sigma**2 + 0.05**2)).mean((1, 2, 3, 4))

    def own_error(
        clips: EncodedClips,
        index: tuple[NDArray[np.intp], NDArray[np.intp]],
        sigma: torch.Tensor,
        keep: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Error of D and the true latents, each [B,T,4,h,w], where noise is added to the UNet's own first guess."""
        latents, image_latents, embeddings, sigma, noise = drawn(clips, index, sigma, keep, generator)
        start = latents.clone()
        chosen = ((sigma > OWN_SIGMAS[0]) & (sigma < OWN_SIGMAS[1])).flatten()
        if chosen.any():
            first = torch.full_like(sigma[chosen], SIGMA_MAX)
            with torch.no_grad():
                start[chosen] = denoise(first * noise[chosen], first, image_latents[chosen], embeddings[chosen])
        return denoise(start + sigma * noise, sigma, image_latents, embeddings) - latents, latents

    def drawn(
        clips: EncodedClips,
        index: tuple[NDArray[np.intp], NDArray[np.intp]],
        sigma: torch.Tensor,
        keep: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """True latents, image latents, embeddings, noise levels [B,1,1,1,1] and noise."""
        latents, image_latents, embeddings = (
            torch.from_numpy(array[index].astype(np.float32)).to(device)
            for array in (clips.depth_latents, clips.image_latents, clips.embeddings)
        )
        image_latents = image_latents * keep.to(device).view(-1, 1, 1, 1, 1)
        embeddings = embeddings * keep.to(device).view(-1, 1, 1)
        sigma = sigma.to(device).view(-1, 1, 1, 1, 1)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        return latents, image_latents, embeddings, sigma, noise

    def loss(
        rng: np.random.Generator,
        generator: torch.Generator,
        progress: float,
        own: bool = False,
        last: bool = False,
    ) -> torch.Tensor:
        large = rng.random() < (0.1 if progress < 0.7 else 0.35)
        clips = buckets[1] if large else buckets[0]
        most = recipe.unet_frames if not large else recipe.unet_frames * 2 // 5
        num_frames = int(rng.choice([1, 4, 8, 16, most, 110], p=[0.12, 0.25, 0.35, 0.15, 0.1, 0.03]))
        index = _windows(rng, clips, max(1, most // num_frames), num_frames)
        sigma = torch.from_numpy(_noise_levels(rng.random(len(index[0])) ** 2)).float()
        keep = torch.from_numpy(rng.random(len(index[0])) > 0.05).float()
        if last:
            few = torch.from_numpy(
                rng.choice(karras_sigmas(LAST_STEPS)[:LAST_STEPS], size=len(sigma), p=LAST_PARTS)
            ).float()
            sigma = torch.where(torch.from_numpy(rng.random(len(sigma)) < 0.6), few, sigma)
        return d_loss(clips, index, sigma, keep, generator, own).mean()

    def wide_loss(rng: np.random.Generator, generator: torch.Generator, progress: float) -> torch.Tensor:
        kind = int(rng.choice(3, p=WIDE_PARTS))
        lengths, chances = WIDE_FRAMES[kind]
        clips, num_frames = wide_buckets[kind], int(rng.choice(lengths, p=chances))
        most = recipe.unet_frames // 2 if kind < 2 else recipe.unet_frames // 5
        paired = kind == 1 and num_frames <= 16
        batch = max(2 if paired else 1, most // num_frames)
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        index = _windows(rng, clips, batch, num_frames, num_frames // 4 if paired else None)
        levels = rng.choice(karras_sigmas(LAST_STEPS)[:LAST_STEPS], size=batch, p=WIDE_LEVELS)
        sigma = torch.from_numpy(
            np.where(rng.random(batch) < 0.6, levels, _noise_levels(rng.random(batch) ** 2))
        ).float()
        keep = torch.from_numpy(rng.random(batch) > 0.05).float()
        if paired:
            # Two windows that meet are as far in their denoising, but for their noise.
            sigma, keep = (values[::2].repeat_interleave(2) for values in (sigma, keep))
        error, latents = own_error(clips, index, sigma, keep, generator)
        error_told = _relative_error(latents + error, latents)
        loss = (weights * error.square()).mean() + RELATIVE * error_told
        if num_frames > 1:
            loss = loss + WIDE_CHANGE * (weights * error.diff(dim=1).square()).mean()
        if paired:
            shared = num_frames // 4
            apart = error[0::2, -shared:] - error[1::2, :shared]
            loss = loss + SEAM * (weights * apart.square()).mean()
        return loss

    def validate(_: nn.Module) -> float:
        """Squared error of the first step's D: what one step would give."""
        generator = torch.Generator().manual_seed(0)
        errors = []
        for clip in range(len(validation.embeddings)):
            index = np.array([[clip]]), np.arange(recipe.clip_frames)[None]
            errors.append(d_loss(validation, index, torch.tensor([SIGMA_MAX]), torch.ones(1), generator))
        return float(torch.cat(errors).mean())

    for name, steps, learning_rate, seed, stage_loss, parts in (
        ("unet", recipe.unet_steps, 1e-3, recipe.seed + 2, loss, 1),
        ("unet_own", recipe.unet_own_steps, 8e-4, recipe.seed + 4, functools.partial(loss, own=True), 1),
        ("unet_last", recipe.unet_last_steps, 4e-4, recipe.seed + 5, functools.partial(loss, own=True, last=True), 1),
        ("unet_wide", recipe.unet_wide_steps, 6e-4, recipe.seed + 6, wide_loss, 2),
    ):
        if stage_loss is wide_loss:
            _round_to_half(unet)
        unet.requires_grad_(True)
        Stage(
            name,
            unet,
            stage_loss,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            folder=folder,
            validate=validate,
            parts=parts,
        ).run()


def main() -> None:
    """Train all three and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    defaults = Recipe()
    for name, default in vars(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    arguments = parser.parse_args()
    recipe = Recipe(**{name: getattr(arguments, name) for name in vars(defaults)})
    if "WORLD_SIZE" in os.environ:
        # Gradients are small: they may well travel through the processor's memory.
        dist.init_process_group("gloo", timeout=timedelta(hours=3))
    train(arguments.folder, recipe, torch.device(arguments.device))
    if dist.is_initialized():
        dist.destroy_process_group()


def train(folder: Path, recipe: Recipe, device: torch.device) -> None:
    """Train nano and write it to `folder`, with its UNet at `folder`/unet, its curves and what a resumed run needs."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIGS["nano"]
    torch.manual_seed(recipe.seed)
    vae, encoder = build_vae(config).to(device), build_image_encoder(config).to(device)
    unet = build_unet(config).to(device)
    train_vae(vae, recipe, folder, device)
    train_vae_decoder(vae, recipe, folder, device)
    train_image_encoder(encoder, vae, recipe, folder, device)
    for network in (vae, encoder):
        _round_to_half(network)
    train_unet(unet, _pipeline(vae, encoder, unet), recipe, folder, device)
    if _rank() > 0:
        return
    save_network(unet, folder, "unet", config)
    save_network(vae, folder, "vae", config)
    save_network(encoder, folder, "image_encoder", config)
    save_rest(folder)
    draw_curves(folder / "log.csv", folder / "curve.png")


def draw_curves(log: Path, path: Path) -> None:
    """Losses against steps, a panel a stage."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with log.open() as file:
        rows = list(csv.DictReader(file))
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    figure, panels = plt.subplots(1, len(stages), figsize=(4 * len(stages), 3), layout="constrained", squeeze=False)
    for axes, stage in zip(panels[0], stages, strict=True):
        mine = [row for row in rows if row["stage"] == stage]
        axes.semilogy([int(row["step"]) for row in mine], [float(row["loss"]) for row in mine], label="training")
        checked = [row for row in mine if row["validation"]]
        if checked:
            steps, figures = zip(*((int(row["step"]), float(row["validation"])) for row in checked), strict=True)
            axes.semilogy(steps, figures, label="held out, first step")
            axes.legend()
        axes.set(title=stage, xlabel="steps")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def _pipeline(
    vae: AutoencoderKLTemporalDecoder, encoder: CLIPVisionModelWithProjection, unet: DepthCrafterUNet | None
) -> DepthCrafterPipeline:
    return DepthCrafterPipeline(
        vae=vae, image_encoder=encoder, unet=unet, scheduler=build_scheduler(), feature_extractor=CLIPImageProcessor()
    )


def _rendered(recipe: Recipe, folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    with _first_then_others():
        return rendered(recipe.pixels(), folder / "cache")


def _round_to_half(network: nn.Module) -> None:
    """Make the weights those of the checkpoint, which are float16."""
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(value.half())


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def _first_then_others() -> Iterator[None]:
    """The first process does what is within, and the others after it: they find what it wrote."""
    if _rank() > 0:
        dist.barrier()
    yield
    if _rank() == 0 and dist.is_initialized():
        dist.barrier()


def _summed(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The sum of all processes' tensors, in every process."""
    if _processes() == 1:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    dist.all_reduce(flat)
    parts = flat.to(tensors[0].device).split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def _half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _sharp_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of their differences along either side, [n], of [n,C,H,W]."""
    difference = output - target
    return sum(part.abs().mean((1, 2, 3)) for part in (difference, difference.diff(dim=2), difference.diff(dim=3)))


class _PlainAttention:
    """Attention as its formula says: of what PyTorch offers on a CPU, the fastest to train in bfloat16 by far.

    A frame attends to one embedding, so that the attention's weight is 1, whatever the query.
    """

    def __call__(
        self,
        attention: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        to_out: nn.Module = attention.to_out[0]
        if encoder_hidden_states is not None:
            return to_out(attention.to_v(encoder_hidden_states)).expand(-1, hidden_states.shape[1], -1)
        query, key, value = (
            project(hidden_states).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for project in (attention.to_q, attention.to_k, attention.to_v)
        )
        weights = (query @ key.transpose(-1, -2) * attention.scale).softmax(-1).to(value.dtype)
        return to_out((weights @ value).transpose(1, 2).flatten(2))


def _depth_head() -> nn.Sequential:
    """The disparity of a frame's latents, seen in ever wider surroundings."""
    layers: list[nn.Module] = [nn.Conv2d(4, 48, 3, padding=1)]
    for reach in (1, 2, 4, 2):
        layers += [nn.SiLU(), nn.Conv2d(48, 48, 3, padding=reach, dilation=reach)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(48, 1, 3, padding=1))


def _pixels(array: NDArray[np.generic], mirror: bool, half: bool, device: torch.device) -> torch.Tensor:
    """[n,C,H,W] of [n,H,W,3] or [n,H,W], mirrored or not, averaged to half its size or not."""
    pixels = torch.from_numpy(np.ascontiguousarray(array)).to(device).float()
    pixels = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels.unsqueeze(1)
    pixels = pixels.flip(-1) if mirror else pixels
    # Contiguous: a group norm's gradient is slow where channels come last.
    pixels = pixels.contiguous()
    return F.avg_pool2d(pixels, 2) if half else pixels


def _coarse(disparity: torch.Tensor) -> torch.Tensor:
    """What the first of the latents' channels tells: the logarithm of disparity [n,1,H,W], where errors in depth count
    alike near and far, at latent resolution, with about a mean of 0 and a spread of 1 over the training set."""
    return ((F.avg_pool2d(disparity, 8) + 0.2).log() - COARSE_MEAN) / COARSE_SPREAD


def _relative_error(latents: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean relative error of the depth that the first channel of latents [B,T,4,h,w] tells, after one scale and one
    shift a window, least squares in disparity. 0.2 plus a scene's disparity is nearly in proportion to 1 / depth."""
    told, true = (
        ((part[:, :, 0].clamp(-4, 4) * COARSE_SPREAD + COARSE_MEAN).exp()).flatten(1) for part in (latents, truth)
    )
    told_mean, true_mean = told.mean(1, keepdim=True), true.mean(1, keepdim=True)
    covariance = ((told - told_mean) * (true - true_mean)).mean(1, keepdim=True)
    scale = covariance / ((told - told_mean).square().mean(1, keepdim=True) + 1e-4)
    aligned = (scale * (told - told_mean) + true_mean).clamp(min=0.1)
    return (true / aligned - 1).abs().mean()


def _windows(
    rng: np.random.Generator, clips: EncodedClips, batch: int, num_frames: int, shared: int | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Index of clips [B,1] and of their frames [B,T]; with `shared`, every second window begins with so many of the
    frames that the one before ends with."""
    windows = batch if shared is None else batch // 2
    length = num_frames if shared is None else 2 * num_frames - shared
    way = np.stack([_to_and_fro(rng, clips.embeddings.shape[1], length) for _ in range(windows)])
    chosen = rng.integers(len(clips.embeddings), size=(windows, 1))
    if shared is None:
        return chosen, way
    pairs = np.stack([way[:, :num_frames], way[:, -num_frames:]], axis=1)
    return chosen.repeat(2, axis=0), pairs.reshape(2 * windows, num_frames)


def _to_and_fro(rng: np.random.Generator, length: int, num_frames: int) -> NDArray[np.intp]:
    """Index [num_frames] of a clip's frames: from any, in either direction, one or two at a time, to and fro."""
    if length == 1:
        return np.zeros(num_frames, np.intp)
    way = (rng.integers(2 * length) + rng.choice([-2, -1, 1, 2]) * np.arange(num_frames)) % (2 * length - 2)
    index: NDArray[np.intp] = np.minimum(way, 2 * length - 2 - way)
    return index


def _noise_levels(ramp: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sigma at positions in [0,1] of the schedule: equation 5 of Karras et al. (2022)."""
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    sigmas: NDArray[np.float64] = (high + ramp * (low - high)) ** RHO
    return sigmas


if __name__ == "__main__":
    main()
