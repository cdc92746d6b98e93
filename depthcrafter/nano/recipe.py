"""Nano's recipe: the figures of its training, and the clips that it is trained on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from depthcrafter.nano.data import TRAINING_SEEDS, VALIDATION_SEEDS, Bucket


@dataclass(frozen=True)
class Recipe:
    """How many steps on how many clips. The defaults are the bundled model's.

    Raises:
        ValueError: two of the UNet's buckets would share scenes.
    """

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

    def __post_init__(self) -> None:
        buckets = sorted([*self.buckets(), *self.wide_buckets()], key=lambda bucket: bucket.first_seed)
        for one, next_one in itertools.pairwise(buckets):
            if one.first_seed + one.num_clips > next_one.first_seed:
                raise ValueError(
                    f"The {one.num_clips} clips of the bucket {one.name!r} run into the seeds of {next_one.name!r}: at "
                    f"most {next_one.first_seed - one.first_seed} fit."
                )

    def pixels(self) -> Bucket:
        """What the VAE and the image encoder are trained on."""
        return Bucket("pixels", TRAINING_SEEDS, self.pixel_clips, 6, 128, 192)

    def buckets(self) -> list[Bucket]:
        """What the UNet's first three stages are trained on: small clips, and some at the demonstration's size."""
        return [
            Bucket("small", TRAINING_SEEDS, self.clips, self.clip_frames, 128, 192),
            Bucket("large", TRAINING_SEEDS + self.clips, self.large_clips, self.clip_frames, 192, 320),
        ]

    def wide_buckets(self) -> list[Bucket]:
        """What the UNet's last stage is trained on, in rooms that the others never saw: single frames, long clips, and
        clips at the demonstration's size."""
        return [
            Bucket("wide", TRAINING_SEEDS + 2_000, self.wide_clips, 1, 128, 192),
            Bucket("long", TRAINING_SEEDS + 14_000, self.long_clips, 2 * self.clip_frames, 128, 192),
            Bucket("large-wide", TRAINING_SEEDS + 15_000, self.large_wide_clips, 4, 192, 320),
        ]

    def validation(self) -> Bucket:
        """What the UNet's curve is measured on."""
        return Bucket("validation", VALIDATION_SEEDS, min(16, self.clips), self.clip_frames, 128, 192)
