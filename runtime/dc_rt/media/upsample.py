"""Depth at another size than the model's: bilinear, or guided by the source's picture where depth jumps.

Guided follows joint bilateral upsampling (Kopf et al., SIGGRAPH 2007), in two steps. A first mean of the depth around a
pixel weights samples by how like the pixel's their colour is, and so tells which side of an edge the pixel is on. A
second mean weights them by how near the first their depth is, so that within a side colour has no say. The result is
blended with bilinear by how far depth departs from a plane; where it does not, bilinear is all there is, and a texture
leaves no trace on the surface that carries it.

All weights are positive and sum to 1, so that no value lies outside those around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dc_rt.cores import num_cores
from dc_rt.options import Outputs

Array = NDArray[np.float32]

# In samples of the model's, along a side: how many a pixel looks at, and two standard deviations of distance.
_TAPS = 4
_FIRST_DISTANCE, _SECOND_DISTANCE = 0.7, 0.5
# Standard deviation of colour, each channel's of 255, and the weight that samples of any other colour have. A smaller
# one follows the noise of a picture, a larger one does not tell sides apart.
_COLOUR, _ANY_COLOUR = 12.75, 1e-6
# Standard deviation of depth in the second mean, as a share of the range around the pixel.
_SIDE = 0.1
_LEAST_SIDE = 1e-5  # far above rounding, where there is no range
# By how much depth departs from a plane where guidance sets in, and where it is complete: in the unit of the model's
# depth, which spans about 1 over a clip. Below are its own noise and what a texture leaves in it.
_STEP, _WHOLE_STEP = 0.05, 0.15

_BAND = 1 << 16  # pixels worked on together


class Upsampler:
    """Brings depth from one size to another, frame by frame, each on its own.

    Every frame is done in bands of rows by several threads; how many there are does not change the result.
    """

    def __init__(self, model_size: tuple[int, int], size: tuple[int, int], mode: str = Outputs.upscale) -> None:
        """`model_size` is height and width of the depth, `size` those that it gets, `mode` of `dc_rt.options.UPSCALES`.

        Where neither side grows there are no edges to be found again, and guided is bilinear too.
        """
        self.model_size, self.size = model_size, size
        self._rows, self._columns = (_Side(*lengths) for lengths in zip(model_size, size, strict=True))
        self._to_rows, self._to_columns = (_Side(*lengths) for lengths in zip(size, model_size, strict=True))
        self._is_guided = takes_guide(model_size, size, mode)
        self._pool = ThreadPoolExecutor(num_cores(), "upsample")

    @property
    def takes_guide(self) -> bool:
        """Whether its results depend on a picture, which need not be read otherwise."""
        return self._is_guided

    def __call__(self, depth: Array, guide: NDArray[np.uint8] | None = None) -> Array:
        """Depth at the new size: float32 [H,W]; `depth` itself where that is the model's.

        Args:
            depth: float32 [h,w], as the model gave it: in [0,1] and not stretched to the range of the clip, since steps
                are told from noise by their height. Nothing else depends on its scale.
            guide: the source's picture, uint8 [H,W,3]; without it the result is bilinear.
        """
        if self.size == self.model_size:
            return depth
        depth = np.ascontiguousarray(depth, np.float32)
        result = np.empty(self.size, np.float32)
        steps = _steps(depth) if self._is_guided and guide is not None else None
        if guide is None or steps is None or not steps.any():
            self._in_bands(self.size, lambda band: _resample(depth, self._rows, self._columns, band, result))
        else:
            small = np.empty((*self.model_size, 3), np.float32)
            self._in_bands(self.model_size, lambda band: _resample(guide, self._to_rows, self._to_columns, band, small))
            planes = [np.ascontiguousarray(small[..., channel]).ravel() for channel in range(3)]
            self._in_bands(self.size, lambda band: self._guide(band, result, depth, steps, guide, planes))
        return np.clip(result, depth.min(), depth.max(), out=result)  # rounding

    def _in_bands(self, size: tuple[int, int], work: Callable[[slice], None]) -> None:
        for _ in self._pool.map(work, _bands(*size)):
            pass

    def _guide(
        self, band: slice, result: Array, depth: Array, steps: Array, guide: NDArray[np.uint8], small: list[Array]
    ) -> None:
        """One band of the result, bilinear and where depth jumps guided."""
        _resample(depth, self._rows, self._columns, band, result)
        share = np.empty_like(result[band])
        _resample(steps, self._rows, self._columns, band, share, at=0)
        chosen = np.flatnonzero(share)
        if not len(chosen):
            return
        y, x = chosen // self.size[1] + band.start, chosen % self.size[1]
        samples = [
            np.take(row, y) * self.model_size[1] + np.take(column, x)
            for row in self._rows.taps
            for column in self._columns.taps
        ]
        values = [np.take(depth.ravel(), sample) for sample in samples]
        colours = [np.take(guide[band, :, channel].ravel(), chosen).astype(np.float32) for channel in range(3)]
        likeness = (_colour_likeness(colours, [np.take(plane, sample) for plane in small]) for sample in samples)
        first = _mean(values, likeness, self._nearness(_FIRST_DISTANCE, y, x))
        second = _mean(values, _depth_likeness(values, first), self._nearness(_SECOND_DISTANCE, y, x))
        flat = result[band].ravel()  # a view
        bilinear = flat[chosen]
        flat[chosen] = bilinear + share.ravel()[chosen] * (second - bilinear)

    def _nearness(self, sigma: float, y: NDArray[np.intp], x: NDArray[np.intp]) -> Iterator[Array]:
        """Of each of the samples to the pixels: float32 [n] in (0,1]."""
        columns = [np.take(weights, x) for weights in self._columns.nearness(sigma)]
        for weights in self._rows.nearness(sigma):
            row = np.take(weights, y)
            yield from (row * column for column in columns)


def _mean(values: list[Array], likeness: Iterable[Array], nearness: Iterable[Array]) -> Array:
    """Of samples' depth [n], with the products of these for weights."""
    total, weighted = np.zeros_like(values[0]), np.zeros_like(values[0])
    for value, like, near in zip(values, likeness, nearness, strict=True):
        weight = like * near
        total += weight
        weight *= value
        weighted += weight
    weighted /= total
    return weighted


def _colour_likeness(colours: list[Array], others: list[Array]) -> Array:
    """Of pixels to samples, by their three channels [n]: float32 [n], from 1 down to `_ANY_COLOUR`."""
    squares = np.zeros_like(colours[0])
    for colour, other in zip(colours, others, strict=True):
        squares += np.square(other - colour)
    squares *= np.float32(-0.5 / _COLOUR**2)
    return np.exp(squares, out=squares) + np.float32(_ANY_COLOUR)


def _depth_likeness(values: list[Array], first: Array) -> Iterator[Array]:
    """Of each of the samples to the first mean [n], in proportion to the range of all of them: float32 [n]."""
    span = np.maximum.reduce(values) - np.minimum.reduce(values)
    scale = np.float32(np.sqrt(0.5)) / (np.float32(_SIDE) * span + np.float32(_LEAST_SIDE))
    for value in values:
        squares = np.square((value - first) * scale)
        np.negative(squares, out=squares)
        yield np.exp(squares, out=squares)


def takes_guide(model_size: tuple[int, int], size: tuple[int, int], mode: str) -> bool:
    """Whether an `Upsampler` of these takes a picture; where neither side grows, there are no edges to find again."""
    return mode == "guided" and (size[0] > model_size[0] or size[1] > model_size[1])


class _Side:
    """Height or width on its way from `length` samples to `target`, pixels' centres over pixels' centres."""

    def __init__(self, length: int, target: int) -> None:
        self._length = length
        self._positions = (np.arange(target) + 0.5) * (length / target) - 0.5
        # A triangle as wide as a sample, or where there are to be fewer, as one of those: what is finer would alias.
        reach = max(length / target, 1)
        first = np.floor(self._positions - reach).astype(int) + 1
        indices = first + np.arange(int(2 * reach) + 1)[:, None]
        weights = np.maximum(1 - np.abs(indices - self._positions) / reach, 0)
        kept = weights.any(axis=1)
        self.indices = np.clip(indices[kept], 0, length - 1)
        """Of the samples that make up each pixel, [n, target]."""
        self.weights = (weights[kept] / weights.sum(axis=0)).astype(np.float32)
        """What they count: float32 [n, target], bilinear."""

    @cached_property
    def _nearest(self) -> NDArray[np.intp]:
        first: NDArray[np.intp] = np.floor(self._positions).astype(np.intp) - (_TAPS // 2 - 1)
        return first + np.arange(_TAPS)[:, None]

    @cached_property
    def taps(self) -> NDArray[np.intp]:
        """The samples around each pixel, [_TAPS, target]; at the border one stands for those beyond it."""
        taps: NDArray[np.intp] = np.clip(self._nearest, 0, self._length - 1)
        return taps

    def nearness(self, sigma: float) -> Array:
        """A Gaussian of their distance: float32 [_TAPS, target]."""
        return np.exp(-0.5 * ((self._nearest - self._positions) / sigma) ** 2).astype(np.float32)


def _resample(
    values: NDArray[np.float32] | NDArray[np.uint8],
    rows: _Side,
    columns: _Side,
    band: slice,
    result: Array,
    at: int | None = None,
) -> None:
    """Fill rows `band` of the result, which begins at row `at` of it, by default its own: [h,w,...] to [H,W,...]."""
    extra = (1,) * (values.ndim - 2)
    tall = np.zeros((band.stop - band.start, *values.shape[1:]), np.float32)
    for indices, weights in zip(rows.indices[:, band], rows.weights[:, band], strict=True):
        tall += values[indices] * weights.reshape(-1, 1, *extra)
    start = band.start if at is None else at
    wide = result[start : start + len(tall)]
    wide[:] = 0
    for indices, weights in zip(columns.indices, columns.weights, strict=True):
        part = np.take(tall, indices, axis=1)
        part *= weights.reshape(-1, *extra)
        wide += part


def _steps(depth: Array) -> Array:
    """How much guidance each sample is to have, float32 [h,w] in [0,1], as it or one beside it departs from a plane."""
    padded = np.pad(depth, 1, mode="edge")
    middle, twice = slice(1, -1), 2 * depth
    departs = np.zeros_like(depth)
    for before, after in (
        (padded[:-2, middle], padded[2:, middle]),
        (padded[middle, :-2], padded[middle, 2:]),
        (padded[:-2, :-2], padded[2:, 2:]),
        (padded[2:, :-2], padded[:-2, 2:]),
    ):
        np.maximum(departs, np.abs(before + after - twice), out=departs)
    share: Array = np.clip((departs - np.float32(_STEP)) / np.float32(_WHOLE_STEP - _STEP), 0, 1)
    padded = np.pad(share, ((1, 1), (0, 0)))
    share = np.maximum(np.maximum(padded[:-2], padded[2:]), share)
    padded = np.pad(share, ((0, 0), (1, 1)))
    result: Array = np.maximum(np.maximum(padded[:, :-2], padded[:, 2:]), share)
    return result


def _bands(height: int, width: int) -> Iterator[slice]:
    """Rows, some at a time."""
    step = max(_BAND // width, 1)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))
