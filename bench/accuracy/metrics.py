"""How far a clip's depth is from the truth: the protocol of DepthCrafter's benchmark, in NumPy and float64.

A prediction is known up to a scale and a shift. They are fitted once a clip, over all its valid pixels, to the inverse
of the true depth; then every frame's errors are taken in depth, and averaged over the frames that have a valid pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Domain = Literal["depth", "disp"]

DOMAINS: tuple[Domain, ...] = ("depth", "disp")

# Least depth that counts as measured, in metres, and least value of a prediction before and after it is aligned.
MIN_DEPTH = 1e-3
DELTA = 1.25


@dataclass(frozen=True)
class Errors:
    """Of the valid pixels of a frame, float64 [N] each: the true depth, and how the estimate differs from it."""

    truth: Float
    difference: Float
    log_ratio: Float
    ratio: Float
    """Of the larger one to the smaller one."""


@dataclass(frozen=True)
class Metric:
    """What tables call it, and what it makes of a frame's errors."""

    title: str
    of: Callable[[Errors], np.floating]


METRICS = {
    "abs_rel": Metric("AbsRel", lambda errors: np.mean(np.abs(errors.difference) / errors.truth)),
    "sq_rel": Metric("SqRel", lambda errors: np.mean(errors.difference**2 / errors.truth)),
    "rmse": Metric("RMSE", lambda errors: np.sqrt(np.mean(errors.difference**2))),
    "rmse_log": Metric("RMSE log", lambda errors: np.sqrt(np.mean(errors.log_ratio**2))),
    "log10": Metric("log10", lambda errors: np.mean(np.abs(errors.log_ratio)) / np.log(10)),
    "silog": Metric("SILog", lambda errors: 100 * np.std(errors.log_ratio)),
    "delta1": Metric("d1", lambda errors: np.mean(errors.ratio < DELTA)),
    "delta2": Metric("d2", lambda errors: np.mean(errors.ratio < DELTA**2)),
    "delta3": Metric("d3", lambda errors: np.mean(errors.ratio < DELTA**3)),
}
"""By the name that records have. The `delta`s are shares, `silog` is in hundredths, `rmse` and `sq_rel` are in the unit
of depth."""


def score_clip(
    prediction: NDArray[Any], truth: NDArray[Any], max_depth: float, domain: Domain = "depth"
) -> dict[str, float]:
    """The `METRICS` of one clip.

    Args:
        prediction: [T,h,w], of any size; it is resized to that of `truth`.
        truth: depth, [T,H,W]; pixels count where MIN_DEPTH < truth < max_depth.
        max_depth: in the unit of `truth`; estimates are clipped to it.
        domain: where the errors are taken, named as in the original: "depth" fits the prediction, a disparity, to the
            inverse of `truth` and inverts it; "disp" fits it to `truth` as it stands, and takes the errors there.

    Raises:
        ValueError: the numbers of frames differ, no frame has a valid pixel, or a prediction there is not finite.
    """
    if len(prediction) != len(truth):
        raise ValueError(f"{len(prediction)} frames were predicted of {len(truth)}")
    # In the truth's own precision: a float32 of 1e-3 is not above 1e-3.
    valid = (truth > MIN_DEPTH) & (truth < max_depth)
    if not valid.any():
        raise ValueError(f"no frame has a depth between {MIN_DEPTH} and {max_depth}")
    predicted = [
        np.maximum(resize_bilinear(frame, *truth.shape[1:])[mask], MIN_DEPTH)
        for frame, mask in zip(prediction, valid, strict=True)
    ]
    depths = [frame[mask].astype(np.float64) for frame, mask in zip(truth, valid, strict=True)]
    values, targets = np.concatenate(predicted), np.concatenate(depths)
    if not np.isfinite(values).all():
        raise ValueError("the prediction holds values that are not finite")
    scale, shift = fit_scale_shift(values, 1 / (targets + 1e-8) if domain == "depth" else targets)

    frames = []
    for value, depth in zip(predicted, depths, strict=True):
        if len(depth):
            aligned = np.maximum(scale * value + shift, MIN_DEPTH)
            estimate = 1 / aligned if domain == "depth" else aligned
            frames.append(frame_metrics(np.clip(estimate, MIN_DEPTH, max_depth), depth))
    return mean_metrics(frames)


def frame_metrics(estimate: Float, truth: Float) -> dict[str, float]:
    """The `METRICS` of the valid pixels of one frame: depths, [N] each, positive."""
    ratio = np.maximum(estimate / truth, truth / estimate)
    errors = Errors(truth, estimate - truth, np.log(estimate) - np.log(truth), ratio)
    return {name: float(metric.of(errors)) for name, metric in METRICS.items()}


def mean_metrics(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each of the `METRICS`, every score counting the same."""
    return {name: float(np.mean([score[name] for score in scores])) for name in METRICS}


def fit_scale_shift(values: Float, targets: Float) -> tuple[float, float]:
    """Scale and shift with the least squared distance of `scale * values + shift` to `targets`, [N] each.

    The scale of values that are all the same is 0.
    """
    mean, target_mean = values.mean(), targets.mean()
    centred = values - mean
    scale = (centred @ (targets - target_mean)) / (centred @ centred) if np.ptp(values) > 0 else 0.0
    return float(scale), float(target_mean - scale * mean)


def resize_bilinear(image: NDArray[Any], height: int, width: int) -> Float:
    """An image [h,w] at another size: [height,width], float64.

    Pixels are squares, whose centres are interpolated between, and edges are repeated. Nothing is averaged when the
    image gets smaller: OpenCV's INTER_LINEAR, which the original uses, does not either.
    """
    image = image.astype(np.float64)
    if image.shape == (height, width):
        return image
    (top, bottom, down), (left, right, across) = _neighbours(image.shape[0], height), _neighbours(image.shape[1], width)
    rows = image[top] * (1 - down)[:, None] + image[bottom] * down[:, None]
    resized: Float = rows[:, left] * (1 - across) + rows[:, right] * across
    return resized


def _neighbours(size: int, new_size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Float]:
    """For each new pixel the old ones on both sides of its centre, and the weight of the second."""
    centres = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    first = centres.astype(np.intp)
    return first, np.minimum(first + 1, size - 1), centres - first
