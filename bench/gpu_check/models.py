"""The models that are checked, and on how much: on a GPU, and in a dry run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.speed.backends import EAGER
from dc_rt.options import Sampling, default_overlap

ROOT = Path(__file__).parents[2]
BUILD_FOLDER = ROOT / "build" / "gpu-check"

SPEED_TARGETS = {EAGER: 2.0, "compile": 1.3}


@dataclass(frozen=True)
class Excerpt:
    """So many frames of the video, and how they are run."""

    frames: int
    window: int
    steps: int = Sampling.steps

    @property
    def sampling(self) -> Sampling:
        return Sampling(steps=self.steps, window_size=self.window, overlap=default_overlap(self.window))


@dataclass(frozen=True)
class Check:
    """One model, what it is compared and timed on, how often, and the speed-ups that it must reach."""

    name: str
    source: str
    profile: str
    parity: Excerpt
    latency: Excerpt
    speed_targets: Mapping[str, float] = dataclasses.field(default_factory=dict)
    backends: tuple[str, ...] = (EAGER, "compile")
    runs: int = 1

    @property
    def folder(self) -> Path:
        """Where its engine set is built."""
        return BUILD_FOLDER / f"{self.name}-{self.profile}"


CHECKS = {
    check.name: check
    for check in (
        Check("nano", "nano", "512x256", Excerpt(60, 32), Excerpt(110, 110), runs=3),
        # The reference in float32 takes several times the memory of the engines: few frames at a time. Timed but once,
        # since each run of each backend is a process that loads 4.5 GB, and compiles: more do not fit a step's time.
        Check("random-full", "random:full", "1024x576", Excerpt(16, 10), Excerpt(110, 110), SPEED_TARGETS),
    )
}
# Compiling for the CPU takes minutes and tells nothing of a GPU.
DRY_CHECKS = {
    name: Check(name, source, "128x64", Excerpt(4, 3, 2), Excerpt(2, 2, 1), backends=(EAGER,))
    for name, source in (("random-tiny", "random:tiny"), ("nano", "nano"))
}


@dataclass(frozen=True)
class Sizes:
    """What the steps that measure parts of the networks are run on.

    Attributes:
        config: the networks' sizes, a name of `depthcrafter.layout.CONFIGS`.
        height: of the frames, in pixels; `width` likewise.
        windows: frames of a window, the longest first.
        chunks: frames that the VAE is given at a time.
        video: frames of the whole run, in two windows of the longest that share `overlap`.
        copied: bytes.
        product: rows and columns of the matrices.
        heads: pairs of (sequences, tokens) that attention is computed over, spatial and temporal.
        head_size: of all of them.
        seconds: that measuring one way may take beside its first two runs.
    """

    config: str
    height: int
    width: int
    windows: tuple[int, ...]
    chunks: tuple[int, ...]
    video: int
    overlap: int
    copied: int
    product: int
    heads: tuple[tuple[int, int], ...]
    head_size: int = 64
    seconds: float = 2.0

    @property
    def sampling(self) -> Sampling:
        return Sampling(window_size=self.windows[0], overlap=self.overlap)


FULL = Sizes(
    config="full",
    height=576,
    width=1024,
    windows=(110, 64, 16),
    chunks=(8, 16),
    video=195,
    overlap=25,
    copied=1 << 30,
    product=8192,
    # At level 0: 5 heads of 9216 tokens a frame, of which 8 frames tell enough; 5 heads of 110 frames a token.
    heads=((8 * 5, 9216), (9216 * 5, 110)),
)
DRY = Sizes(
    config="tiny",
    height=64,
    width=128,
    windows=(4, 3, 2),
    chunks=(2, 3),
    video=7,
    overlap=1,
    copied=1 << 20,
    product=64,
    heads=((2, 128), (8, 4)),
    seconds=0.01,
)
