"""Left and right views of a picture by its depth, and the ways in which two views are put into one.

Each row is a line of pixels that depth moves sideways: x goes to u(x) = x + shift(x) in the left view and to
x - shift(x) in the right one, with a shift that grows with nearness. The stretch between two neighbours takes colours
between theirs, unless it is cut: then it is an edge between what is near and what is far, with a hole behind it.

Occlusion is exact and needs no sorting. Where stretches that start at x1 < x2 reach the same place in the left view,
the first has moved farther, so it is nearer: the smallest x wins (the occlusion-compatible order of McMillan, "An
Image-Based Approach to Three-Dimensional Computer Graphics", 1997, chapter 3). The right view is the left one of the
mirrored picture. Positions are counted in 256ths of a pixel, so that what decides is integer arithmetic: it depends
neither on the machine nor on how many threads work.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.cores import num_cores

_ONE = 256  # a pixel, in the unit of shifts
# Neighbours that part or meet by more than this are not of one surface.
_CUT = _ONE * 3 // 4
# Depth that was blurred or upsampled has ramps for edges: what is steeper, in pixels a pixel, is taken for one.
_STEEPEST_SURFACE = 0.2
# Of a ramp's height, from which a pixel belongs to what is near: those of mixed colours move with it.
_NEAR_SHARE = 0.15
# Half the width of the widest ramp that becomes one edge, to the width of the picture.
_RAMP = 6 / 1024
_NARROWEST_RAMP = 5
# From the edge of a hole to the first pixel that fills it: nearer ones have some of what is in front in them.
_MIXED = 2
_LEAST_CLIMB = _ONE // 16  # to the next pixel of a ramp
_ROWS = 64  # worked on at a time by a thread

# The least-squares matrices for red-cyan glasses and an LCD, of linear light: Eric Dubois, "Conversion of a Stereo Pair
# to Anaglyph with the Least-Squares Projection Method", March 2009 (the method: ICASSP 2001, "A projection method to
# generate anaglyph stereo images"). The left view's, then the right one's; rows are the anaglyph's red, green and blue.
_DUBOIS = np.array(
    [
        [[0.437, 0.449, 0.164], [-0.062, -0.062, -0.024], [-0.048, -0.050, -0.017]],
        [[-0.011, -0.032, -0.007], [0.377, 0.761, 0.009], [-0.026, -0.093, 1.234]],
    ],
    dtype=np.float32,
)
_LEVELS = 1 << 16  # of linear light, as a table holds them


@dataclass(frozen=True)
class View:
    """What one eye sees.

    Attributes:
        image: uint8 [H,W,3], whole.
        holes: bool [H,W], true where nothing of the source is seen, and `image` was filled from behind.
    """

    image: NDArray[np.uint8]
    holes: NDArray[np.bool_]


class StereoWarper:
    """Makes views of pictures by their depth, by several threads; a context manager."""

    def __init__(self, disparity: float, convergence: float) -> None:
        """How deep the picture is.

        Args:
            disparity: between the nearest and the farthest, in percent of the picture's width.
            convergence: the depth, in [0,1], of what appears on the screen: larger is in front of it.
        """
        self._disparity = disparity
        self._convergence = convergence
        self._pool = ThreadPoolExecutor(num_cores(), "stereo")

    def __call__(self, image: NDArray[np.uint8], depth: NDArray[np.float32]) -> tuple[View, View]:
        """The left eye's view and the right one's.

        Args:
            image: uint8 [H,W,3].
            depth: float32 [H,W] in [0,1], larger is nearer.

        Raises:
            ValueError: they are not of one size.
        """
        height, width = depth.shape
        if image.shape != (height, width, 3):
            raise ValueError(f"a picture of shape {image.shape} does not fit to depth of {depth.shape}")
        left, right = (View(np.empty((height, width, 3), np.uint8), np.empty((height, width), np.bool_)) for _ in "lr")
        scale = self._disparity / 100 * width / 2 * _ONE
        radius = max(round(width * _RAMP), _NARROWEST_RAMP)

        def work(start: int) -> None:
            stop = min(start + _ROWS, height)
            top, bottom = max(start - radius, 0), min(stop + radius, height)
            shift = np.rint((depth[top:bottom] - np.float32(self._convergence)) * np.float32(scale)).astype(np.int32)
            shift = _with_edges(shift, radius)[start - top : stop - top]
            rows = slice(start, stop)
            _warp(image[rows], shift, left.image[rows], left.holes[rows])
            _warp(image[rows, ::-1], shift[:, ::-1], right.image[rows, ::-1], right.holes[rows, ::-1])

        for done in [self._pool.submit(work, start) for start in range(0, height, _ROWS)]:
            done.result()
        return left, right

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def _with_edges(shift: NDArray[np.int32], radius: int) -> NDArray[np.int32]:
    """Shifts whose ramps are edges, [H,W]: each pixel on one goes to the side that it is nearer to.

    A pixel is on a ramp if it is between its neighbours in a row or in a column: what is sharp stays as it is.
    """
    low, high = _extreme(np.minimum, shift, radius), _extreme(np.maximum, shift, radius)
    rise = high - low
    steep = rise > int((2 * radius + 1) * _STEEPEST_SURFACE * _ONE)
    if not steep.any():
        return shift
    on_ramp = steep & (_is_between(shift, 0) | _is_between(shift, 1))
    side = np.where((shift - low).astype(np.float32) >= rise * np.float32(_NEAR_SHARE), high, low)
    return np.where(on_ramp, side, shift)


def _is_between(shift: NDArray[np.int32], axis: int) -> NDArray[np.bool_]:
    """Whether one neighbour of a pixel along an axis is higher and the other one lower, [H,W]; never at the borders."""
    found = np.zeros(shift.shape, np.bool_)
    steps = np.diff(np.moveaxis(shift, axis, 0), axis=0)
    up, down = steps > _LEAST_CLIMB, steps < -_LEAST_CLIMB
    np.moveaxis(found, axis, 0)[1:-1] = (up[1:] & up[:-1]) | (down[1:] & down[:-1])
    return found


def _extreme(of: np.ufunc, values: NDArray[np.int32], radius: int) -> NDArray[np.int32]:
    """The smallest or largest of each pixel's neighbourhood of 2 * radius + 1 pixels a side; borders are repeated."""
    found = np.pad(values, radius, mode="edge")
    for axis in 0, 1:
        found = np.moveaxis(found, axis, 0)
        size = 1
        while size < 2 * radius + 1:
            step = min(size, 2 * radius + 1 - size)
            found = of(found[:-step], found[step:])
            size += step
        found = np.moveaxis(found, 0, axis)
    return found


def _warp(image: NDArray[np.uint8], shift: NDArray[np.int32], out: NDArray[np.uint8], holes: NDArray[np.bool_]) -> None:
    """Move every pixel to the right by its shift, [H,W], in 256ths, and fill what is left; writes `out` and `holes`."""
    height, width = shift.shape
    columns = np.arange(width, dtype=np.int32)
    starts = columns * _ONE + shift
    lengths = np.full_like(starts, _ONE)
    np.subtract(starts[:, 1:], starts[:, :-1], out=lengths[:, :-1])
    cut = np.abs(lengths - _ONE) > _CUT
    cut[:, -1] = True
    ends = starts + np.where(cut, _ONE, lengths)
    winners = _winners(starts, ends)
    np.equal(winners, width, out=holes)
    # From here on of every place in the view: where it comes from, as an index of the band's pixels.
    sources = np.minimum(winners, width - 1) + np.arange(height, dtype=np.int32)[:, None] * width
    lengths[cut] = 1 << 24  # so long that a place is always at its start: no colour is mixed across an edge
    offsets = columns * _ONE - starts.ravel().take(sources)
    weights = (offsets.astype(np.float32) * np.float32(_ONE) / lengths.ravel().take(sources)).astype(np.uint32)
    packed = np.zeros((height, width, 4), np.uint8)
    for channel in range(3):  # which is five times as fast as all at once
        packed[..., channel] = image[..., channel]
    picture = _mixed(packed.view(np.uint32).ravel(), sources, weights)
    if holes.any():
        _fill(picture, holes, shift.ravel(), sources)
    unpacked = picture.view(np.uint8).reshape(height, width, 4)
    for channel in range(3):
        out[..., channel] = unpacked[..., channel]


def _winners(starts: NDArray[np.int32], ends: NDArray[np.int32]) -> NDArray[np.int32]:
    """The smallest x whose stretch covers a place of the view, [H,W]; the width where none does.

    A stretch goes from its place in `starts` to before that in `ends`, and none is as long as two pixels.
    """
    height, width = starts.shape
    first, past = (starts + (_ONE - 1)) >> 8, (ends + (_ONE - 1)) >> 8
    columns = np.broadcast_to(np.arange(width, dtype=np.int32), starts.shape)
    rows = np.arange(height, dtype=np.int32)[:, None] * width
    winners = np.full(height * width + 1, width, np.int32)  # the last is of what falls beside the view
    covered = (first < past) & (first >= 0) & (first < width)
    np.minimum.at(winners, np.where(covered, first + rows, height * width).ravel(), columns.ravel())
    row, column = np.nonzero(past - first > 1)
    second = first[row, column] + 1
    inside = (second >= 0) & (second < width)
    row, column, second = row[inside], column[inside].astype(np.int32), second[inside]
    np.minimum.at(winners, second + row * width, column)
    return winners[:-1].reshape(height, width)


def _mixed(colours: NDArray[np.uint32], sources: NDArray[np.int32], weights: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Each source's colour mixed with the next pixel's by `weights` of 256, two channels at a time in each integer."""
    first = colours[sources]
    if not weights.any():
        return first
    second = colours[np.minimum(sources + 1, colours.size - 1)]
    mask, half = np.uint32(0x00FF00FF), np.uint32(0x00800080)
    rest = np.uint32(_ONE) - weights
    even = (((first & mask) * rest + (second & mask) * weights + half) >> 8) & mask
    odd = ((first >> 8) & mask) * rest + ((second >> 8) & mask) * weights + half
    mixed: NDArray[np.uint32] = even | (odd & ~mask)
    return mixed


def _fill(
    picture: NDArray[np.uint32], holes: NDArray[np.bool_], shift: NDArray[np.int32], sources: NDArray[np.int32]
) -> None:
    """Fill holes from the farther of their two sides, mirrored at it, as far as that surface goes.

    Args:
        picture: [H,W], colours; holes are written.
        holes: [H,W].
        shift: [H*W], of the source.
        sources: [H,W], where in it each place comes from.
    """
    width = picture.shape[1]
    row, column, left, right = _sides(holes)

    def shift_at(columns: NDArray[np.intp]) -> NDArray[np.int32]:
        return shift[sources[row, np.clip(columns, 0, width - 1)]]

    # A side that is not there is no choice.
    is_left = (right == width) | ((left >= 0) & (shift_at(left) <= shift_at(right)))
    border = np.clip(np.where(is_left, left, right), 0, width - 1)  # of a row of which nothing is seen, any
    is_open = (left < 0) | (right == width)  # at the picture's own border nothing is in front
    beyond = np.where(is_open, 0, _MIXED) - 1
    taken = 2 * border - column + np.where(is_left, -beyond, beyond)
    is_there = (taken >= 0) & (taken < width)
    taken = np.where(is_there, taken, border)
    is_one_surface = ~holes[row, taken] & (np.abs(shift_at(taken) - shift_at(border)) <= _CUT)
    picture[row, column] = picture[row, np.where(is_one_surface, taken, border)]


def _sides(holes: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Of every place in a hole its row and column, and the columns left and right of the hole: [N] each.

    -1 and the width stand for what is beyond the picture.
    """
    edges = np.diff(np.pad(holes, ((0, 0), (1, 1))).view(np.int8), axis=1)
    (row, first), (_, past) = np.nonzero(edges > 0), np.nonzero(edges < 0)
    lengths = past - first
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    row, first, past = (np.repeat(each, lengths) for each in (row, first, past))
    return row, first + np.arange(len(row)) - before, first - 1, past


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture [H,W,3] at half its width, rounded up: the mean of every two columns, as for half side by side."""
    even = np.pad(image, ((0, 0), (0, image.shape[1] % 2), (0, 0)), mode="edge").astype(np.uint16)
    half: NDArray[np.uint8] = ((even[:, ::2] + even[:, 1::2] + 1) >> 1).astype(np.uint8)
    return half


def anaglyph(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two views, sRGB uint8 [H,W,3], as one for glasses that are red on the left and cyan on the right (Dubois)."""
    linear = _to_linear()
    out = np.empty_like(left)
    for rows in _bands(len(left)):
        # Each eye's part is clipped before they are added, as the note has it.
        parts = [
            np.clip(linear[view[rows]] @ matrix.T, 0, 1) for view, matrix in zip((left, right), _DUBOIS, strict=True)
        ]
        light = np.minimum(parts[0] + parts[1], 1)
        out[rows] = _from_linear()[np.rint(light * (_LEVELS - 1)).astype(np.int32)]
    return out


def _bands(height: int) -> Iterator[slice]:
    for start in range(0, height, _ROWS):
        yield slice(start, start + _ROWS)


@cache
def _to_linear() -> NDArray[np.float32]:
    """Light of each sRGB value: float32 [256] in [0,1] (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@cache
def _from_linear() -> NDArray[np.uint8]:
    """The sRGB value of light: uint8 [_LEVELS]."""
    light = np.linspace(0, 1, _LEVELS)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    table: NDArray[np.uint8] = np.rint(value * 255).astype(np.uint8)
    return table
