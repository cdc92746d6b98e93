import numpy as np
import pytest

from dc_rt.schedule import initial_scale, karras_sigmas


@pytest.fixture
def scheduler(checkpoint):
    """The checkpoint's own, which needs PyTorch."""
    from depthcrafter import load_scheduler

    return load_scheduler(checkpoint[0])


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 25])
def test_sigmas_are_those_of_the_checkpoints_scheduler(scheduler, steps):
    scheduler.set_timesteps(steps)
    np.testing.assert_allclose(karras_sigmas(steps), scheduler.sigmas.numpy(), rtol=1e-6)


def test_initial_scale_is_that_of_the_checkpoints_scheduler(scheduler):
    scheduler.set_timesteps(5)
    assert initial_scale() == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-6)


def test_sigmas_fall_from_700_to_0():
    sigmas = karras_sigmas(5)
    assert sigmas.dtype == np.float32
    assert sigmas[0] == 700
    assert sigmas[-2] == pytest.approx(0.002, rel=1e-5)
    assert sigmas[-1] == 0
    assert (np.diff(sigmas) < 0).all()


def test_a_step_with_d_is_the_schedulers_step_with_v(scheduler):
    torch = pytest.importorskip("torch")
    scheduler.set_timesteps(5)
    sigmas = karras_sigmas(5)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 4, 8, 8, generator=rng) * 700
    for sigma, sigma_next, t in zip(sigmas, sigmas[1:], scheduler.timesteps, strict=False):
        v = torch.randn(x.shape, generator=rng)
        denoised = x / (sigma**2 + 1) - v * sigma / np.sqrt(sigma**2 + 1)
        expected = scheduler.step(v, t, x).prev_sample
        x = x + (x - denoised) / sigma * (sigma_next - sigma)
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)
