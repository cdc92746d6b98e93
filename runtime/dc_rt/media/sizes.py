"""At which size and which rate a video is processed: the rules of the original (`depthcrafter/utils.py`)."""

from __future__ import annotations

from dc_rt.errors import UserError

# The denoiser's last level has 1/8 of the latents' sides, which are 1/8 of the pixels'.
SIZE_MULTIPLE = 64

LARGEST_STRIDE = 2**31  # more frames than any video has

# (height, width) of the paper's benchmarks.
DATASET_SIZES: dict[str, tuple[int, int]] = {
    "sintel": (448, 1024),
    "scannet": (640, 832),
    "KITTI": (384, 1280),
    "bonn": (512, 640),
    "NYUv2": (448, 640),
}


def output_size(height: int, width: int, max_res: int = 1024, dataset: str = "open") -> tuple[int, int]:
    """Height and width, multiples of 64, at which a video of `height` x `width` pixels is processed.

    `dataset` is "open" for any video, or one of `DATASET_SIZES`, whose size is then used as it is. Rounding is to
    the nearest multiple, so that a `max_res` that is none can be exceeded by up to 32 pixels.
    Raises `UserError` for an unknown dataset or `max_res` < 64.
    """
    if dataset in DATASET_SIZES:
        return DATASET_SIZES[dataset]
    if dataset != "open":
        raise UserError(f"There is no dataset '{dataset}'; --dataset takes open, {', '.join(DATASET_SIZES)}.")
    if max_res < SIZE_MULTIPLE:
        raise UserError(f"The longer side must be at least {SIZE_MULTIPLE} pixels, not {max_res}; try --max-res 1024.")
    size = _nearest_multiple(height), _nearest_multiple(width)
    if max(size) > max_res:
        scale = max_res / max(height, width)
        size = _nearest_multiple(height * scale), _nearest_multiple(width * scale)
    return size


def frame_stride(source_fps: float, target_fps: float) -> int:
    """Every how many frames of the source one is taken, at least 1; a target of -1 keeps the source's rate.

    Raises `UserError` for a target that is neither -1 nor positive.
    """
    if target_fps == -1:
        return 1
    if not target_fps > 0:
        raise UserError(f"The target frame rate must be positive, or -1 for the video's own, not {target_fps}.")
    return max(round(min(float(source_fps) / target_fps, LARGEST_STRIDE)), 1)


def _nearest_multiple(side: float) -> int:
    # The original rounds a side of at most 32 pixels to 0, which no network takes.
    return max(round(side / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE
