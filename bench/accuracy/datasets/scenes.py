"""Held-out scenes of nano's world, with exact depth: a small data set to try the benchmark on, without any download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.accuracy.dataset import DataSet, ImageAndDepth, Recording, read_png_depth
from depthcrafter.nano.scenes import make_clip

SEEDS = range(400, 408)
LENGTH, HEIGHT, WIDTH = 12, 128, 192


def recordings(root: Path, depth_root: Path) -> Iterator[Recording]:
    for seed in SEEDS:
        yield Recording(f"{seed}", [], [])


def generate(recording: Recording) -> Iterator[ImageAndDepth]:
    clip = make_clip(int(recording.name), LENGTH, HEIGHT, WIDTH)
    yield from zip(clip.frames, clip.depth, strict=True)


DATASET = DataSet(
    name="scenes",
    length=LENGTH,
    max_depth=30,  # nothing in a scene is farther
    where="nowhere: they are made, and any folder does",
    recordings=recordings,
    read_depth=lambda path: read_png_depth(path, 1000),
    generate=generate,
)
