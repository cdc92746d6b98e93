"""The sliding window: which frames are denoised together, how neighbours are joined, and what one leaves to the next.

Window k covers frames [k*stride, k*stride + window), cut at the end of the video, with stride = window - overlap.
There is a window after it exactly when a frame lies beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass(frozen=True)
class WindowState:
    """What a window leaves to the next one: with it and the frames from `next_frame` on, a run is resumed.

    Attributes:
        start: first frame of the next window.
        image_latents: of that window's first frames, those of the overlap: float32 [overlap,4,h,w].
        embeddings: likewise, float32 [overlap,C].
        latents: the result so far over these frames, which the next window's is blended with: float32 [overlap,4,h,w].
        finished: latents that wait for a whole chunk to be decoded with: float32 [0 to 7,4,h,w].
    """

    start: int
    image_latents: Float
    embeddings: Float
    latents: Float
    finished: Float

    @property
    def next_frame(self) -> int:
        """The first frame that was not encoded yet."""
        return self.start + len(self.embeddings)

    @property
    def num_decoded(self) -> int:
        """Frames whose depth was given out."""
        return self.start - len(self.finished)

    @classmethod
    def initial(cls, shape: tuple[int, ...], embedding_dim: int) -> WindowState:
        """Before the first window: nothing is shared. `shape` is that of a frame's latents, [4,h,w]."""
        none = np.empty((0, *shape), np.float32)
        return cls(0, none, np.empty((0, embedding_dim), np.float32), none, none)


def plan_windows(num_frames: int, window_size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First frame and end of every window of a video of `num_frames` frames, in order; 0 <= overlap < window_size."""
    start = 0
    while num_frames > 0:
        end = min(start + window_size, num_frames)
        yield start, end
        if end == num_frames:
            return
        start += window_size - overlap


def blend_weights(overlap: int) -> Float:
    """Weight of the newer window over the overlap: float32 [overlap], 0 to 1 with both end points."""
    return np.linspace(0, 1, overlap, dtype=np.float32)


def blend(old: Float, new: Float) -> Float:
    """Cross-fade two results of the same frames, [overlap, ...] each, from `old` to `new`."""
    w = blend_weights(len(old)).reshape(-1, *[1] * (old.ndim - 1))
    return new * w + old * (1 - w)
