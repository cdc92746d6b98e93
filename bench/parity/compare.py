"""Two backends on the same frames with the same noise: their error for every graph, window and step.

Two errors are told apart. The *local* one gives both the inputs that the first one had: a difference shows where it
arises, and nowhere else. The *accumulated* one is between their own runs: it shows what becomes of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.speed.backends import Call, Float, wrap
from dc_rt import DepthCrafter
from dc_rt.engine import Array, EngineSet
from dc_rt.options import Sampling


@dataclass(frozen=True)
class Place:
    """A run of a graph in the course of a video; `step` is 0 for all but the denoiser."""

    graph: str
    window: int
    step: int


@dataclass(frozen=True)
class Error:
    """Mean and largest absolute difference of a graph's output, and its own root mean square to compare them with."""

    mean: float
    max: float
    scale: float

    @classmethod
    def between(cls, actual: Float, expected: Float) -> Error:
        difference = np.abs(actual - expected)
        return cls(float(difference.mean()), float(difference.max()), float(np.sqrt(np.square(expected).mean())))

    @classmethod
    def over(cls, errors: Sequence[Error]) -> Error:
        """Of several runs at one place: chunks of a window, or the evaluations of a step."""
        means, largest, scales = zip(*((error.mean, error.max, error.scale) for error in errors), strict=True)
        return cls(float(np.mean(means)), max(largest), float(np.mean(scales)))


@dataclass(frozen=True)
class Differences:
    """Depth of both, float32 [T,H,W], and their errors by place."""

    depth: Float
    other: Float
    local: dict[Place, Error]
    accumulated: dict[Place, Error]

    @property
    def worst(self) -> Place:
        """Where the largest difference arises, for the size of what is computed there."""
        return max(self.local, key=lambda place: self.local[place].max / (self.local[place].scale or 1.0))


def compare(one: EngineSet, other: EngineSet, frames: Sequence[NDArray[np.uint8]], sampling: Sampling) -> Differences:
    """Run `one` with `other` beside it on the same inputs, then `other` on its own.

    The outputs of the first run are kept for the second: beside the depth 16 MB a window and step at 1024x576.
    """
    local: dict[Place, list[Error]] = {}
    accumulated: dict[Place, list[Error]] = {}
    kept: list[Float] = []

    def beside(place: Place, inputs: Mapping[str, Array], run: Call) -> Float:
        output = run(place.graph, inputs)
        local.setdefault(place, []).append(Error.between(other(place.graph, **inputs), output))
        kept.append(output)
        return output

    depth = _run(one, frames, sampling, beside)
    remaining = iter(kept)

    def alone(place: Place, inputs: Mapping[str, Array], run: Call) -> Float:
        output = run(place.graph, inputs)
        accumulated.setdefault(place, []).append(Error.between(output, next(remaining)))
        return output

    other_depth = _run(other, frames, sampling, alone)
    return Differences(
        depth,
        other_depth,
        {place: Error.over(errors) for place, errors in local.items()},
        {place: Error.over(errors) for place, errors in accumulated.items()},
    )


def _run(
    engines: EngineSet,
    frames: Sequence[NDArray[np.uint8]],
    sampling: Sampling,
    around: Callable[[Place, Mapping[str, Array], Call], Float],
) -> Float:
    """Depth of `frames`, every run of a graph going through `around`, which is told where in the video it is."""
    steps = [step for step, evaluations in enumerate(sampling.evaluations) for _ in range(evaluations)]
    denoised = 0

    def located(graph: str, inputs: Mapping[str, Array], run: Call) -> Float:
        nonlocal denoised
        window, call = divmod(denoised, len(steps))
        if graph == "denoiser":
            denoised += 1
        # A window is decoded once all of its steps are done, and so counts as over by then.
        place = Place(graph, window - (graph == "vae_decoder"), steps[call])
        return around(place, inputs, run)

    return np.stack(list(DepthCrafter(wrap(engines, located))(frames, sampling)))


def by_window_and_step(errors: Mapping[Place, Error]) -> Float:
    """The denoiser's largest errors: float32 [windows, steps]."""
    places = [place for place in errors if place.graph == "denoiser"]
    shape = (1 + max(place.window for place in places), 1 + max(place.step for place in places))
    table = np.zeros(shape, np.float32)
    for place in places:
        table[place.window, place.step] = errors[place].max
    return table
