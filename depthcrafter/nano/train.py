"""Train nano: the VAE, then its decoder once more, then the image encoder, then the UNet, in four stages.

    python -m depthcrafter.nano.train checkpoints/nano
    torchrun --nproc-per-node 2 -m depthcrafter.nano.train checkpoints/nano

About seven hours on one CPU core; a GPU is used when there is one. Two processes halve the last stage's time, on two
cores. The same seed on the same machine gives the same weights. An interrupted training goes on where it was when the
command is run again. The curves are written to log.csv and curve.png in the folder.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKLTemporalDecoder
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from depthcrafter.layout import (
    CONFIGS,
    build_image_encoder,
    build_scheduler,
    build_unet,
    build_vae,
    save_network,
    save_rest,
)
from depthcrafter.nano.data import coarse, rendered, to_and_fro
from depthcrafter.nano.recipe import Recipe
from depthcrafter.nano.stage import Stage, first_then_others, in_bfloat16, rank, round_to_half
from depthcrafter.nano.train_unet import train_unet
from depthcrafter.reference import DepthCrafterPipeline
from depthcrafter.unet import DepthCrafterUNet

# How much wrong changes from frame to frame weigh against wrong frames, to the decoder.
CHANGE = 8.0


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
        chunk = rng.integers(len(frames)), to_and_fro(rng, frames.shape[1], num_frames)
        mirror, colours = rng.random() < 0.5, rng.permutation(3)
        images, depths, more = (
            _pixels(array[index], mirror, half, device)
            for array, index in ((frames, (clips, times)), (disparity, (clips, times)), (disparity, chunk))
        )
        images, chunk_grey = images[:, colours] * (2 / 255) - 1, more.expand(-1, 3, -1, -1) * 2 - 1
        with in_bfloat16(device):
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
            with in_bfloat16(device):
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
        way = to_and_fro(rng, disparity.shape[1], num_frames)
        if rng.random() < 0.5:
            way[:] = way[0]
        chunk = rng.integers(len(disparity)), way
        grey = _pixels(disparity[chunk], rng.random() < 0.5, half, device).expand(-1, 3, -1, -1) * 2 - 1
        with in_bfloat16(device):
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
        round_to_half(network)
    train_unet(unet, _pipeline(vae, encoder, unet), recipe, folder, device)
    if rank() > 0:
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
    columns = min(4, len(stages))
    lines = math.ceil(len(stages) / columns)
    figure = plt.figure(figsize=(4 * columns, 3 * lines), layout="constrained")
    for number, stage in enumerate(stages, start=1):
        axes = figure.add_subplot(lines, columns, number)
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
    with first_then_others():
        return rendered(recipe.pixels(), folder / "cache")


def _sharp_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of their differences along either side, [n], of [n,C,H,W]."""
    difference = output - target
    return sum(part.abs().mean((1, 2, 3)) for part in (difference, difference.diff(dim=2), difference.diff(dim=3)))


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
    """`coarse` of disparity [n,1,H,W] at latent resolution, [n,1,H/8,W/8]."""
    return coarse(F.avg_pool2d(disparity, 8))


if __name__ == "__main__":
    main()
