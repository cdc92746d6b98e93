"""What benchmarks run: frames of a clip at a size, and a model on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dc_rt.engine import Profile
from dc_rt.engine.manifest import Shape
from dc_rt.errors import UserError
from dc_rt.media import read_frames

DEMO = Path(__file__).parents[1] / "examples" / "demo.mp4"
DEFAULT_SIZE = (192, 320)  # height and width
DEFAULT_WINDOW = 16
DEFAULT_FRAMES = 32


def clip_frames(video: Path, height: int, width: int, num_frames: int) -> Iterator[NDArray[np.uint8]]:
    """`num_frames` frames, uint8 [H,W,3], of a video, which is taken over and over where it is too short."""
    left = num_frames
    while left:
        before = left
        for frame in read_frames(video, height, width, 1, left):
            left -= 1
            yield frame
        if left == before:
            raise UserError(f"No frame of {video} could be decoded; copy or download it again.")


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "WIDTHxHEIGHT"; raises for sides that the model cannot run."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()) or int(width) % 64 or int(height) % 64 or not int(width):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in multiples of 64, such as 320x192")
    return int(height), int(width)


def nearest_size(profile: Profile, size: tuple[int, int]) -> tuple[int, int]:
    """The height and width nearest to `size` that a profile runs, by what the sides differ together."""

    def within(shape: Shape) -> tuple[int, int]:
        height, width = (
            min(max(side, span.min), span.max) for side, span in zip(size, (shape.height, shape.width), strict=True)
        )
        return height, width

    return min(map(within, profile.shapes), key=lambda found: abs(found[0] - size[0]) + abs(found[1] - size[1]))
