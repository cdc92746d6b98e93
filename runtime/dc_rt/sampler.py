"""Samplers: from noise to latents by a denoiser's D(x; sigma), whatever library the arrays are of.

After k-diffusion: a denoiser is a function, and a sampler is plain arithmetic on what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

Array = TypeVar("Array", bound=Any)

Denoise = Callable[[Array, Any], Array]
"""D(x; sigma) of Karras et al. (2022): the denoised latents, of the shape of x."""


class Sampler(NamedTuple):
    """A way to take the steps.

    Attributes:
        sample: called with D(x; sigma), latents under noise of the first sigma, and the noise levels, falling to 0: of
            NumPy in the runtime, Python's numbers in the reference. It may evaluate D at any level.
        evaluations: how often it evaluates D in each of so many steps: what a run costs, and how far it is.
        least_steps: that it can take.
        good_steps: from which its result is as good as that of the first of `SAMPLERS`.
    """

    sample: Callable[[Denoise[Any], Any, Iterable[Any]], Any]
    evaluations: Callable[[int], Sequence[int]]
    least_steps: int = 1
    good_steps: int = 1


def sample_euler(denoise: Denoise[Array], x: Array, sigmas: Iterable[Any]) -> Array:
    """Euler's method on the probability flow (Karras et al. 2022, algorithm 1 without its correction).

    Args:
        denoise: D(x; sigma).
        x: latents under noise of the first sigma.
        sigmas: noise levels, falling to 0.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x = euler_step(denoise, x, sigma, sigma_next)
    return x


def euler_step(denoise: Denoise[Array], x: Array, sigma: Any, sigma_next: Any) -> Array:
    """From one noise level to the next along the slope (x - D(x; sigma)) / sigma."""
    step: Array = x - denoise(x, sigma)
    # In place: a window's latents are tens of megabytes, and new memory takes longer than arithmetic.
    step /= sigma
    step *= sigma_next - sigma
    step += x
    return step


def sample_trimmed(denoise: Denoise[Array], x: Array, sigmas: Iterable[Any]) -> Array:
    """Euler's method through the same levels, without the evaluations at the first and at the last: docs/samplers.md.

    D at the first level, so noisy that it hardly looks at x, reaches the third by a hundredth of that level's noise: D
    at the second stands for it. At the last the noise is gone, and x is the result but for that level's own size.

    Args:
        denoise: D(x; sigma).
        x: latents under noise of the first sigma.
        sigmas: noise levels, falling to 0, five at least with that.
    """
    first, second, *levels = sigmas
    denoised = denoise(x * (second / first), second)
    x = denoised + (x - denoised) * (levels[0] / first)
    *levels, _, _ = levels
    for sigma, sigma_next in pairwise(levels):
        x = euler_step(denoise, x, sigma, sigma_next)
    return denoise(x, levels[-1])


def guided(conditional: Denoise[Array], unconditional: Denoise[Array], scale: Any) -> Denoise[Array]:
    """Classifier-free guidance (Ho and Salimans 2021): away from what is denoised without the condition."""

    def denoise(x: Array, sigma: Any) -> Array:
        denoised, without = conditional(x, sigma), unconditional(x, sigma)
        mixed: Array = without + scale * (denoised - without)
        return mixed

    return denoise


SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler(sample_euler, lambda steps: [1] * steps),
    "trimmed": Sampler(sample_trimmed, lambda steps: [0, *[1] * (steps - 2), 0], least_steps=4, good_steps=5),
}
"""By the name that the option `sampler` has; the first is the original's."""
