"""At which size and which rate a video is processed: the rules of the original (`depthcrafter/utils.py`)."""

from __future__ import annotations

from dc_rt.options import DATASET_SIZES, SIZE_MULTIPLE, Source

LARGEST_STRIDE = 2**31  # more frames than any video has


def output_size(
    height: int, width: int, max_res: int = Source.max_res, dataset: str = Source.dataset
) -> tuple[int, int]:
    """Height and width, multiples of 64, at which a video of `height` x `width` pixels is processed.

    `max_res` and `dataset` are those of `dc_rt.options.Source`; the size of a data set is used as it is. Rounding is to
    the nearest multiple, so that a `max_res` that is none can be exceeded by up to 32 pixels.
    """
    if dataset in DATASET_SIZES:
        return DATASET_SIZES[dataset]
    size = _nearest_multiple(height), _nearest_multiple(width)
    if max(size) > max_res:
        scale = max_res / max(height, width)
        size = _nearest_multiple(height * scale), _nearest_multiple(width * scale)
    return size


def frame_stride(source_fps: float, target_fps: float) -> int:
    """Every how many frames of the source one is taken, at least 1; a target of -1 keeps the source's rate."""
    if target_fps == -1:
        return 1
    return max(round(min(float(source_fps) / target_fps, LARGEST_STRIDE)), 1)


def _nearest_multiple(side: float) -> int:
    # The original rounds a side of at most 32 pixels to 0, which no network takes.
    return max(round(side / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE
