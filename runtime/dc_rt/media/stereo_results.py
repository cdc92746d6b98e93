"""The writers of `dc_rt.outputs` that put pictures together: stereo, and source, grey and colours side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from dc_rt.media.colormap import coloured, to_uint8
from dc_rt.media.convention import shown_uint8
from dc_rt.media.results import Adapted, Result, ResultFrame, Writer
from dc_rt.media.stereo import StereoWarper, anaglyph, halved
from dc_rt.media.write_video import VideoWriter
from dc_rt.outputs import all_outputs

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class _Layout:
    """How a mode puts views together: `make` gives a picture for each of its files, `width` that of one from a view's.

    `is_packed` tells players that its left half is the left eye's.
    """

    make: Callable[[StereoWarper, ResultFrame], tuple[Picture, ...]]
    width: Callable[[int], int]
    is_packed: bool = False


def _both(warper: StereoWarper, frame: ResultFrame) -> tuple[Picture, Picture]:
    left, right = warper(frame.image, frame.depth)
    return left.image, right.image


def _beside(warper: StereoWarper, frame: ResultFrame) -> tuple[Picture, ...]:
    return (np.hstack(_both(warper, frame)),)


def _half_beside(warper: StereoWarper, frame: ResultFrame) -> tuple[Picture, ...]:
    return (np.hstack([halved(view) for view in _both(warper, frame)]),)


def _anaglyph(warper: StereoWarper, frame: ResultFrame) -> tuple[Picture, ...]:
    return (anaglyph(*_both(warper, frame)),)


def _picture_and_depth(warper: StereoWarper, frame: ResultFrame) -> tuple[Picture, ...]:
    return (np.hstack([frame.image, _as_rgb(to_uint8(frame.depth))]),)


_LAYOUTS = {
    "sbs": _Layout(_beside, lambda width: 2 * width, is_packed=True),
    "half-sbs": _Layout(_half_beside, lambda width: 2 * -(-width // 2), is_packed=True),
    "anaglyph": _Layout(_anaglyph, lambda width: width),
    "rgbd": _Layout(_picture_and_depth, lambda width: 2 * width),
    "left+right": _Layout(_both, lambda width: width),
}
"""By the value of the option `stereo`."""


def stereo(path: Path, result: Result) -> Writer:
    """Left and right views, as the option `stereo` lays them out; its second file, if it has one, beside the first."""
    return _StereoVideo(path, result)


class _StereoVideo:
    def __init__(self, path: Path, result: Result) -> None:
        mode = result.outputs.stereo
        self._layout = _LAYOUTS[mode]
        paths = [path, *_siblings(path, all_outputs()["stereo"].suffixes[mode])]
        self._stack = ExitStack()
        with ExitStack() as opening:
            self._warper = opening.enter_context(StereoWarper(result.outputs.disparity, result.outputs.convergence))
            self._videos = [
                opening.enter_context(
                    VideoWriter(
                        each,
                        result.timeline,
                        result.height,
                        self._layout.width(result.width),
                        sample_aspect_ratio=result.sample_aspect_ratio,
                        audio=result.audio,
                        is_side_by_side=self._layout.is_packed,
                    )
                )
                for each in paths
            ]
            self._stack = opening.pop_all()

    def write(self, frame: ResultFrame) -> None:
        """Write the views of a frame."""
        for video, picture in zip(self._videos, self._layout.make(self._warper, frame), strict=True):
            video.write(picture, frame.number, frame.audio)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def side_by_side(path: Path, result: Result) -> Writer:
    """The source's picture, depth in grey and depth in colours beside one another."""
    outputs = result.outputs

    def taken(frame: ResultFrame) -> tuple[Picture, int, tuple[Packet, ...]]:
        grey, colours = shown_uint8(frame, outputs), coloured(frame.depth, outputs.colormap)
        return np.hstack([frame.image, _as_rgb(grey), colours]), frame.number, frame.audio

    size = (result.height, 3 * result.width)
    shape = result.sample_aspect_ratio
    return Adapted(VideoWriter(path, result.timeline, *size, sample_aspect_ratio=shape, audio=result.audio), taken)


def _siblings(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The other files of an output whose first file is at `path`, all of one container."""
    first, *others = (Path(suffix).stem for suffix in suffixes)
    for other in others:
        yield path.with_name(f"{path.stem.removesuffix(first)}{other}{path.suffix}")


def _as_rgb(grey: Picture) -> Picture:
    return np.repeat(grey[..., None], 3, axis=-1)
