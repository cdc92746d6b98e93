"""The noise of frames to come, made by threads while the model runs: it takes one most of a GPU's time for a frame."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.cores import num_cores, yield_to_the_model
from dc_rt.noise import Noise, NoiseSource

Float = NDArray[np.float32]

# Of noise that waits to be used: 72 frames at 1024x576, of the 85 that a window takes.
AHEAD_BYTES = 1 << 29
_MOST_THREADS = 4
_CHUNKS_AT_FIRST = 6


class NoiseAhead:
    """Noise for the pixels of chunks of frames, scaled; as a context manager its threads end with it.

    Made ahead is what comes from `Noise`. Any other source is asked when its noise is needed, in the caller's thread
    and for no frame that there is not.
    """

    def __init__(
        self,
        noise: NoiseSource,
        scale: np.float32,
        shape: tuple[int, int],
        cuts: Iterator[tuple[int, int]],
        most_frames: int,
    ) -> None:
        """Start to make it.

        Args:
            noise: where it comes from.
            scale: its standard deviation.
            shape: height and width of frames.
            cuts: first frame and number of frames of each chunk, in the order in which they are taken, without end.
            most_frames: to make ahead, within `AHEAD_BYTES`.
        """
        self._noise, self._scale, self._shape, self._cuts = noise, scale, (3, *shape), cuts
        self._most_frames = min(most_frames, AHEAD_BYTES // (4 * math.prod(self._shape)))
        self._coming: deque[tuple[int, int, Float, list[Future[None]]]] = deque()
        self._free: list[Float] = []
        self._taken: Float | None = None
        self._pool: ThreadPoolExecutor | None = None
        if isinstance(noise, Noise) and type(noise).frame is Noise.frame:
            self._pool = ThreadPoolExecutor(min(num_cores(), _MOST_THREADS), "noise", yield_to_the_model)
            self._fill = noise.fill_frame
            # Before the first is taken CLIP sees a window: by then there are some. A short video ends before most are
            # made, and those that were not begun are not.
            for _ in range(_CHUNKS_AT_FIRST):
                self._begin_if_there_is_room()

    def take(self, index: int, num_frames: int) -> Float:
        """The next chunk's, which starts with frame `index`: float32 [n,3,H,W]; the video's last may be shorter.

        Its memory is used again when the next one is taken: new memory of this size takes a system as long as noise.
        """
        if self._pool is None:
            eps = np.stack([self._noise.frame(index + i, self._shape) for i in range(num_frames)])
            scaled: Float = self._scale * eps
            return scaled
        start, most, noise, parts = self._coming.popleft()
        if start != index or num_frames > most:
            raise ValueError(f"{num_frames} frames from {index} on are not the next chunk, {most} from {start}")
        if self._taken is not None:
            self._free.append(self._taken)
        self._taken = noise
        # Two for one, until there are as many as may be: for a short video little is made in vain.
        for _ in range(2):
            self._begin_if_there_is_room()
        for part in parts:
            part.result()
        return noise[:num_frames]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _begin_if_there_is_room(self) -> None:
        """Have another chunk be made, each frame's in its place."""
        if self._coming and sum(most for _, most, _, _ in self._coming) >= self._most_frames:
            return
        assert self._pool is not None
        start, num_frames = next(self._cuts)
        noise = self._memory_for(num_frames)
        parts = [self._pool.submit(self._make, start + i, noise[i]) for i in range(num_frames)]
        self._coming.append((start, num_frames, noise, parts))

    def _memory_for(self, num_frames: int) -> Float:
        for i, used in enumerate(self._free):
            if len(used) >= num_frames:
                return self._free.pop(i)
        return np.empty((num_frames, *self._shape), np.float32)

    def _make(self, index: int, out: Float) -> None:
        self._fill(index, out)
        np.multiply(out, self._scale, out=out)
