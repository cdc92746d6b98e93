"""Where the pipeline takes its noise from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dc_rt.options import Sampling


class NoiseSource(Protocol):
    """Standard normal noise, float32, that is the same at every call with the same arguments."""

    def frame(self, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Noise [3,H,W] for the pixels of frame `index` of the video."""
        ...

    def latent(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Noise [4,h,w] that a frame's latents start from; `slot` is its index modulo the window."""
        ...


class Noise:
    """The default noise: a counter-based generator (Philox) keyed by seed, kind and index.

    A frame's noise depends on nothing else, neither on how frames are grouped nor on where a run was resumed.
    """

    _FRAME, _LATENT = 0, 1

    def __init__(self, seed: int = Sampling.seed) -> None:
        """`seed` in [0, 2^64); raises `UserError` otherwise."""
        self.seed = Sampling(seed=seed).seed

    def frame(self, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._generator(self._FRAME, index).standard_normal(shape, np.float32)

    def latent(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._generator(self._LATENT, slot).standard_normal(shape, np.float32)

    def fill_frame(self, index: int, out: NDArray[np.float32]) -> None:
        """Put what `frame` gives into an array, contiguous, [3,H,W]; from any thread, without holding up the others."""
        self._generator(self._FRAME, index).standard_normal(dtype=np.float32, out=out)

    def _generator(self, kind: int, index: int) -> np.random.Generator:
        key = np.array([self.seed, (kind << 56) | index], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key))
