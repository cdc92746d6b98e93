"""The noise schedule: which levels of noise a sampler goes through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dc_rt.options import Sampling

SIGMA_MIN = 0.002
SIGMA_MAX = 700.0
RHO = 7.0


def noise_levels(sampling: Sampling) -> NDArray[np.float32]:
    """Those that a sampler goes through, falling, with a final 0: float32 [steps + 1]."""
    return karras_sigmas(sampling.steps)


def karras_sigmas(steps: int) -> NDArray[np.float32]:
    """Noise levels of `steps` denoising steps, at least 1, falling, with a final 0: float32 [steps + 1].

    Equation 5 of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models"
    (NeurIPS 2022), between the bounds of Stable Video Diffusion's scheduler.
    """
    ramp = np.linspace(0, 1, steps)
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    sigmas = (high + ramp * (low - high)) ** RHO
    return np.append(sigmas, 0.0).astype(np.float32)


def initial_scale() -> np.float32:
    """Standard deviation of the first step's latents, sqrt(sigma_max^2 + 1): noise over data of unit variance."""
    return np.float32(np.sqrt(SIGMA_MAX**2 + 1))
