"""How much of what nano is trained on. The defaults are the bundled model's."""

from __future__ import annotations

from dataclasses import dataclass

from depthcrafter.nano.data import TRAINING_SEEDS, VALIDATION_SEEDS, Bucket


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
