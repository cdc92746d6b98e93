"""The UNet's training, in four stages."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from numpy.typing import NDArray
from torch import nn

from dc_rt.schedule import RHO, SIGMA_MAX, SIGMA_MIN, karras_sigmas
from depthcrafter.nano.data import EncodedClips, encoded, near, to_and_fro
from depthcrafter.nano.recipe import Recipe
from depthcrafter.nano.stage import Stage, first_then_others, in_bfloat16, round_to_half
from depthcrafter.reference import ADDED_TIME_IDS, DepthCrafterPipeline
from depthcrafter.unet import DepthCrafterUNet

# Of clips [B,1] and of their frames [B,T].
Index = tuple[NDArray[np.intp], NDArray[np.intp]]

# How much wrong changes from frame to frame weigh against wrong frames.
CHANGE = 8.0
# The noise levels at which the state that the UNet itself comes to matters: above, noise hides it; below, it is final.
OWN_SIGMAS = 0.3, 50.0
# The third stage looks most at the noise levels of a run of so many steps, in these parts: where the picture is all but
# done, noise must be told from it exactly, or it flickers.
LAST_STEPS, LAST_PARTS = 5, (0.2, 0.1, 0.2, 0.5, 0.0)
# The same for the fourth, and how much there wrong changes and the disagreement of windows that share frames weigh
# against wrong frames, and wrong relative depth against wrong latents.
WIDE_PARTS = 0.4, 0.05, 0.15, 0.4, 0.0
WIDE_CHANGE, SEAM, RELATIVE = 2.0, 4.0, 1.0
# How many parts a step of the fourth has, which processes may share.
PARTS_OF_A_STEP = 2


@dataclass(frozen=True)
class _Diet:
    """Windows of one of `Recipe.wide_buckets`: their share, how many frames they have and how often, and up to how many
    frames they come in pairs that share a quarter of them."""

    share: float
    lengths: tuple[int, ...]
    chances: tuple[float, ...]
    paired: int = 0
    # A frame's pixels over those of 128x192.
    size: float = 1.0


# In the buckets' order. Windows of two frames are left out: on a CPU, PyTorch 2.13's gradient of a temporal convolution
# over two frames in bfloat16 is wrong, and at times not a number.
WIDE = (
    _Diet(0.55, (1, 4), (0.75, 0.25)),
    _Diet(0.33, (4, 8, 16, 32, 110), (0.3, 0.36, 0.26, 0.06, 0.02), paired=16),
    _Diet(0.12, (1, 6), (0.4, 0.6), size=2.5),
)


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
    saw, far more of them. Short windows of long clips come in pairs that share a quarter of their frames, each with
    noise of its own, and their disagreement on these counts. So does the relative error of the depth that the first
    channel tells, once aligned as the evaluation aligns it.
    """
    unet.set_attn_processor(_PlainAttention())
    with torch.no_grad():
        # The image latents come unscaled.
        unet.conv_in.weight[:, 4:] *= pipeline.vae.config.scaling_factor
    losses = _Losses(unet, pipeline, recipe, folder / "cache", device)
    last = functools.partial(losses.own, last=True)
    for name, loss, steps, learning_rate, seed, parts in (
        ("unet", losses.first, recipe.unet_steps, 1e-3, recipe.seed + 2, 1),
        ("unet_own", losses.own, recipe.unet_own_steps, 8e-4, recipe.seed + 4, 1),
        ("unet_last", last, recipe.unet_last_steps, 4e-4, recipe.seed + 5, 1),
        ("unet_wide", losses.wide, recipe.unet_wide_steps, 6e-4, recipe.seed + 6, PARTS_OF_A_STEP),
    ):
        if name == "unet_wide":
            round_to_half(unet)
        unet.requires_grad_(True)
        Stage(
            name,
            unet,
            loss,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            folder=folder,
            validate=losses.validate,
            parts=parts,
        ).run()


@dataclass(frozen=True)
class _Batch:
    """True latents, image latents [B,T,4,h,w] and embeddings [B,T,C] of windows, noise and its levels [B,1,1,1,1]."""

    latents: torch.Tensor
    image_latents: torch.Tensor
    embeddings: torch.Tensor
    sigma: torch.Tensor
    noise: torch.Tensor

    def where(self, chosen: torch.Tensor) -> _Batch:
        return _Batch(**{name: tensor[chosen] for name, tensor in vars(self).items()})


class _Losses:
    """What each stage minimises, as `Stage` asks for it, and what all are validated by."""

    def __init__(
        self,
        unet: DepthCrafterUNet,
        pipeline: DepthCrafterPipeline,
        recipe: Recipe,
        cache: Path,
        device: torch.device,
    ) -> None:
        self._unet, self._recipe, self._device = unet, recipe, device
        with first_then_others():
            self._small, self._large, *self._wide, self._validation = (
                encoded(bucket, pipeline, cache, recipe.seed)
                for bucket in (*recipe.buckets(), *recipe.wide_buckets(), recipe.validation())
            )
        self._added_time_ids = torch.tensor([ADDED_TIME_IDS], device=device)
        self._weights = torch.tensor([3.0, 1.0, 1.0, 1.0], device=device).view(4, 1, 1) / 1.5

    def first(self, rng: np.random.Generator, generator: torch.Generator, progress: float) -> torch.Tensor:
        """The first stage's."""
        clips, index, sigma, keep = self._draw(rng, progress)
        return self._v_error(self._batch(clips, index, sigma, keep, generator)).mean()

    def own(
        self, rng: np.random.Generator, generator: torch.Generator, progress: float, last: bool = False
    ) -> torch.Tensor:
        """The second stage's and, `last`, the third's."""
        clips, index, sigma, keep = self._draw(rng, progress)
        if last:
            levels = _levels_of_a_run(rng, LAST_PARTS, len(sigma))
            sigma = torch.where(torch.from_numpy(rng.random(len(sigma)) < 0.6), levels, sigma)
        error = self._own_error(self._batch(clips, index, sigma, keep, generator))
        return self._squared(error) + CHANGE * self._squared_change(error)

    def wide(self, rng: np.random.Generator, generator: torch.Generator, progress: float) -> torch.Tensor:
        """The fourth stage's."""
        kind = int(rng.choice(len(WIDE), p=[diet.share for diet in WIDE]))
        diet, clips = WIDE[kind], self._wide[kind]
        num_frames = int(rng.choice(diet.lengths, p=diet.chances))
        paired = num_frames <= diet.paired
        size = int(self._recipe.unet_frames / PARTS_OF_A_STEP / diet.size) // num_frames
        size = max(2, size - size % 2) if paired else max(1, size)
        # From here on, a part of a step draws for itself.
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        shared = num_frames // 4
        index = windows(rng, clips, size, num_frames, shared if paired else None)
        levels = _levels_of_a_run(rng, WIDE_PARTS, size)
        of_a_run = torch.from_numpy(rng.random(size) < 0.6)
        sigma = torch.where(of_a_run, levels, _noise_levels(rng, size))
        keep = torch.from_numpy(rng.random(size) > 0.05).float()
        if paired:
            # Two windows that meet are as far in their denoising, but for their noise.
            sigma, keep = (values[::2].repeat_interleave(2) for values in (sigma, keep))
        batch = self._batch(clips, index, sigma, keep, generator)
        error = self._own_error(batch)
        loss = self._squared(error) + RELATIVE * relative_error(batch.latents + error, batch.latents)
        loss = loss + WIDE_CHANGE * self._squared_change(error)
        if paired:
            loss = loss + SEAM * self._squared(error[0::2, -shared:] - error[1::2, :shared])
        return loss

    def validate(self) -> float:
        """Squared error of the first step's D: what one step would give."""
        generator = torch.Generator().manual_seed(0)
        errors = []
        for clip in range(len(self._validation.embeddings)):
            index = np.array([[clip]]), np.arange(self._recipe.clip_frames)[None]
            batch = self._batch(self._validation, index, torch.tensor([SIGMA_MAX]), torch.ones(1), generator)
            errors.append(self._v_error(batch))
        return float(torch.cat(errors).mean())

    def _draw(
        self, rng: np.random.Generator, progress: float
    ) -> tuple[EncodedClips, Index, torch.Tensor, torch.Tensor]:
        """Clips, windows of them, noise levels [B], and whether they are told what they see [B]."""
        large = rng.random() < (0.1 if progress < 0.7 else 0.35)
        clips = self._large if large else self._small
        most = self._recipe.unet_frames if not large else self._recipe.unet_frames * 2 // 5
        num_frames = int(rng.choice([1, 4, 8, 16, most, 110], p=[0.12, 0.25, 0.35, 0.15, 0.1, 0.03]))
        index = windows(rng, clips, max(1, most // num_frames), num_frames)
        sigma = _noise_levels(rng, len(index[0]))
        keep = torch.from_numpy(rng.random(len(index[0])) > 0.05).float()
        return clips, index, sigma, keep

    def _batch(
        self, clips: EncodedClips, index: Index, sigma: torch.Tensor, keep: torch.Tensor, generator: torch.Generator
    ) -> _Batch:
        latents, image_latents, embeddings = (
            torch.from_numpy(array[index].astype(np.float32)).to(self._device)
            for array in (clips.depth_latents, clips.image_latents, clips.embeddings)
        )
        sigma, keep = (values.to(self._device).view(-1, 1, 1, 1, 1) for values in (sigma, keep))
        noise = torch.randn(latents.shape, generator=generator).to(self._device)
        return _Batch(latents, image_latents * keep, embeddings * keep[..., 0, 0], sigma, noise)

    def _denoise(self, noisy: torch.Tensor, batch: _Batch) -> torch.Tensor:
        """D, [B,T,4,h,w], of latents with noise of the batch's levels."""
        sigma = batch.sigma
        spread = (sigma**2 + 1).sqrt()
        with in_bfloat16(self._device):
            v = self._unet(
                torch.cat([noisy / spread, batch.image_latents], dim=2),
                sigma.flatten().log() / 4,
                batch.embeddings,
                self._added_time_ids.expand(len(noisy), -1),
                return_dict=False,
            )[0].float()
        denoised: torch.Tensor = noisy / spread**2 - v * sigma / spread
        return denoised

    def _v_error(self, batch: _Batch) -> torch.Tensor:
        """Squared error of D, [B], weighted as v is, but for noise too faint to matter."""
        error = self._denoise(batch.latents + batch.sigma * batch.noise, batch) - batch.latents
        weighted = self._weights * error.square() * (batch.sigma**2 + 1) / (batch.sigma**2 + 0.05**2)
        return weighted.mean((1, 2, 3, 4))

    def _own_error(self, batch: _Batch) -> torch.Tensor:
        """Error of D, [B,T,4,h,w], where noise of levels within `OWN_SIGMAS` is added to the UNet's own first guess."""
        start = batch.latents.clone()
        chosen = ((batch.sigma > OWN_SIGMAS[0]) & (batch.sigma < OWN_SIGMAS[1])).flatten()
        if chosen.any():
            first = batch.where(chosen)
            first = dataclasses.replace(first, sigma=torch.full_like(first.sigma, SIGMA_MAX))
            with torch.no_grad():
                start[chosen] = self._denoise(first.sigma * first.noise, first)
        return self._denoise(start + batch.sigma * batch.noise, batch) - batch.latents

    def _squared(self, error: torch.Tensor) -> torch.Tensor:
        return (self._weights * error.square()).mean()

    def _squared_change(self, error: torch.Tensor) -> torch.Tensor | float:
        """Of errors' changes from frame to frame; 0 where there is one frame."""
        return self._squared(error.diff(dim=1)) if error.shape[1] > 1 else 0.0


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


def relative_error(latents: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean relative error of the depth that latents [B,T,4,h,w] tell in their first channel, [].

    Scale and shift are fitted a window, least squares in disparity, as the evaluation fits them a clip. What `coarse`
    takes the logarithm of is nearly in proportion to 1 / depth.
    """
    told, true = (near(part[:, :, 0].clamp(-4, 4)).flatten(1) for part in (latents, truth))
    told_mean, true_mean = told.mean(1, keepdim=True), true.mean(1, keepdim=True)
    covariance = ((told - told_mean) * (true - true_mean)).mean(1, keepdim=True)
    scale = covariance / ((told - told_mean).square().mean(1, keepdim=True) + 1e-4)
    aligned = (scale * (told - told_mean) + true_mean).clamp(min=0.1)
    return (true / aligned - 1).abs().mean()


def windows(
    rng: np.random.Generator, clips: EncodedClips, batch: int, num_frames: int, shared: int | None = None
) -> Index:
    """Index of windows of clips.

    Args:
        rng: draws the clips and where in them the windows begin.
        clips: n of them.
        batch: B; even, with `shared`.
        num_frames: T.
        shared: every second window begins with so many of the frames that the one before ends with.

    Returns:
        Index of clips [B,1] and of their frames [B,T].
    """
    count, length = (batch, num_frames) if shared is None else (batch // 2, 2 * num_frames - shared)
    way = np.stack([to_and_fro(rng, clips.embeddings.shape[1], length) for _ in range(count)])
    chosen = rng.integers(len(clips.embeddings), size=(count, 1))
    if shared is None:
        return chosen, way
    pairs = np.stack([way[:, :num_frames], way[:, -num_frames:]], axis=1)
    return chosen.repeat(2, axis=0), pairs.reshape(batch, num_frames)


def _levels_of_a_run(rng: np.random.Generator, parts: tuple[float, ...], size: int) -> torch.Tensor:
    """Noise levels [size] of a run of `LAST_STEPS` steps, in these parts."""
    return torch.from_numpy(rng.choice(karras_sigmas(LAST_STEPS)[:LAST_STEPS], size=size, p=parts)).float()


def _noise_levels(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Noise levels [size] of the whole schedule, equation 5 of Karras et al. (2022), most of them near its start."""
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return torch.from_numpy((high + rng.random(size) ** 2 * (low - high)) ** RHO).float()
